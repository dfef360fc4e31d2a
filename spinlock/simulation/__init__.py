"""Computes samples as a function of (configuration, index).

`spinlock.simulation.simulator.Simulator` evaluates the function. Its parts are the Sobol design,
the initial conditions, the operators, the forcing and the rollout. All random numbers are addressed
by seed and index (`spinlock.simulation.randomness`).
"""
