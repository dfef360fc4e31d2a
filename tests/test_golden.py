"""A golden sample: what identifies a dataset's bytes must not change unnoticed.

After a change that is meant to change samples, raise ``SIMULATION_VERSION`` and write the golden
sample anew: ``python -m tests.test_golden``.
"""

import json
from pathlib import Path

import numpy as np
import torch

from spinlock.configuration.generation_config import SIMULATION_VERSION, GenerationConfig
from spinlock.simulation.randomness import Stream, symmetric_uniform
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design

GOLDEN = Path(__file__).parent / "golden.json"
INDICES = (0, 3, 10, 17)
CONFIG = GenerationConfig.from_dict(
    {
        "num_samples": 18,
        "num_realizations": 2,
        "num_timesteps": 4,
        "probes_per_operator": 2,
        "parameter_space": {"grid_size": [32], "base_channels": {"low": 4, "high": 8}},
    }
)


def record():
    """Numbers from every stage of a few samples."""
    design = make_design(CONFIG)
    names = CONFIG.mixture.names
    values = CONFIG.space.values(design.params)
    found = {
        "simulation_version": SIMULATION_VERSION,
        "fingerprint": CONFIG.fingerprint,
        "baseline_fingerprint": GenerationConfig(10_000).fingerprint,
        "weights": symmetric_uniform(42, Stream.WEIGHTS, 3, 8, substream=2).tolist(),
        "samples": {},
    }
    for index in INDICES:
        (sample,) = Simulator(CONFIG, "cpu").samples(index, index + 1)
        found["samples"][str(index)] = {
            "params": design.params[index].tolist(),
            "values": [str(value) for value in values[index]],
            "variant": names[design.variant[index]],
            "initial": sample.initial[0, :, ::11, ::13].flatten().tolist(),
            "fields": sample.fields[0, :, :, :, ::17, ::19].flatten().tolist(),
            "per_timestep": sample.features.per_timestep[0, -1].tolist(),
            "aggregated": sample.features.aggregated[0].tolist(),
        }
    return found


def test_golden_sample():
    golden, found = json.loads(GOLDEN.read_text()), record()
    for name in ("simulation_version", "fingerprint", "baseline_fingerprint", "weights"):
        assert found[name] == golden[name], f"{name} changed: see the docstring of this file"
    for index, expected in golden["samples"].items():
        sample = found["samples"][index]
        for name in ("params", "values", "variant"):
            assert sample[name] == expected[name], (index, name)
        for name in ("initial", "fields"):
            one, two = (torch.tensor(x[name]) for x in (sample, expected))
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
        # Features amplify rounding where a field is nearly flat or a spectrum nearly empty.
        for name in ("per_timestep", "aggregated"):
            one, two = np.array(sample[name]), np.array(expected[name])
            np.testing.assert_allclose(one, two, rtol=1e-2, atol=1e-2, err_msg=f"{index} {name}")


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(record(), indent=1) + "\n")
