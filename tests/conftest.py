"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from spinlock.runtime.arithmetic import fixed_arithmetic

# Processes side by side share the cores out.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, torch.get_num_threads() // workers))

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Every device of this machine: the same test runs on each."""
    chosen = torch.device(request.param)
    # TF32, cuDNN's default, is no arithmetic to compare with an oracle.
    with fixed_arithmetic("float32", chosen) if chosen.type == "cuda" else nullcontext():
        yield chosen
