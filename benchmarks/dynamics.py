"""Cost of measuring the dynamics: `python -m benchmarks.dynamics [--samples 48]`.

Compares the processor time of generating samples of the baseline (drawing and calibrating the
operator, fields and features) with that of measuring the dynamics of the same operators, one thread
each. Prints both times and their ratio.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from benchmarks.machine import describe
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_space import typed_row
from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.dynamics import DynamicsMeter, measuring_side
from spinlock.simulation.rollout import update_weights
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design

CONFIG = Path(__file__).parent.parent / "configs" / "baseline_10k.yaml"


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--side", type=int, help="side of the grid of the dynamics")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    data = yaml.safe_load(CONFIG.read_text())["data"]
    config = dataclasses.replace(
        GenerationConfig.from_dict(data["generation"]),
        num_samples=options.samples,
        dynamics=False,
    )
    side = options.side or measuring_side(config.grid_size, built_in=True)
    meter = DynamicsMeter(config.seed, config.channels, side)
    simulator = Simulator(config, device="cpu")
    rows = make_design(config).values
    generating = measuring = 0.0
    for index, row in enumerate(rows):
        start = time.process_time()
        list(simulator.samples(index, index + 1))
        generated = time.process_time()
        values = typed_row(row)
        keep, gain = update_weights(values)
        with torch.inference_mode():
            operator = ConvOperator(values, seed=config.seed, index=index, channels=config.channels)
            drawn = time.process_time()
            meter.measure(
                operator,
                keep=keep,
                gain=gain,
                noise_scale=values.noise_scale,
                noise_length=values.spatial_correlation,
            )
        generating += generated - start
        measuring += time.process_time() - drawn
    count = len(rows)
    print(describe(torch.device("cpu")))
    print(f"generating a sample    {1e3 * generating / count:7.1f} ms of processor time")
    print(f"measuring the dynamics {1e3 * measuring / count:7.1f} ms, {measuring / generating:.0%}")


if __name__ == "__main__":
    main()
