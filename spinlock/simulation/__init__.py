"""The simulation: the function (configuration, index) -> sample, and the parts it is made of.

`spinlock.simulation.simulator.Simulator` evaluates it. The parts are the Sobol design, the initial
conditions, the operators, the forcing and the rollout, all of which draw from addressed randomness.
"""
