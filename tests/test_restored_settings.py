"""Settings are restored exactly, also where threads, forks and errors come between."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.backends import cuda, cudnn, mkldnn

from spinlock.runtime import arithmetic
from spinlock.runtime.arithmetic import fixed_arithmetic
from tests.process_settings import CUDA_MATMUL, HOSTILE, MODERN, attribute, called, settings


def cuda_precision():
    return CUDA_MATMUL.fp32_precision == "tf32" if MODERN else CUDA_MATMUL.allow_tf32


@pytest.mark.parametrize("devices", [("cuda", "cuda"), ("cpu", "cuda", "cuda")])
def test_threads_share_the_switches(devices):
    """The first thread sets them and the last one restores them, in whatever order they end."""
    seen, start = [], threading.Barrier(len(devices))

    def compute(device):
        start.wait()
        for _ in range(200):
            with fixed_arithmetic(device):
                for _ in range(3):
                    seen.append(torch.get_default_dtype() is torch.float32)
                    if device == "cuda":
                        seen.append((cuda_precision(), cudnn.benchmark) == (False, False))
                    time.sleep(0)

    hostile = called(torch.set_default_dtype, torch.float64, torch.float32)
    with hostile, HOSTILE["matmul medium"](), attribute(cudnn, "benchmark", True):
        inside = settings()
        with ThreadPoolExecutor(len(devices)) as pool:
            for task in [pool.submit(compute, device) for device in devices]:
                task.result()
        assert settings() == inside
    assert len(seen) >= 600 * len(devices)
    assert all(seen)


@pytest.mark.skipif(not MODERN, reason="torch < 2.9 has the older switches only")
def test_the_newer_getters_answer_while_a_gpu_computes():
    with HOSTILE["matmul medium"](), fixed_arithmetic("cuda"):
        assert CUDA_MATMUL.fp32_precision == cudnn.conv.fp32_precision == "ieee"


def test_a_switch_turned_meanwhile_is_turned_back_and_then_left():
    """The caller may change its mind while threads compute in the background."""
    with called(torch.set_default_dtype, torch.float32, torch.float32), HOSTILE["no mkldnn"]():
        with fixed_arithmetic():
            mkldnn.enabled = False
            with fixed_arithmetic():
                assert mkldnn.enabled
            torch.set_default_dtype(torch.float64)
        assert torch.get_default_dtype() is torch.float64
        assert not mkldnn.enabled


@pytest.mark.skipif(not MODERN, reason="torch < 2.9 has the older switches only")
def test_older_getters_work_while_a_processor_computes():
    with HOSTILE["matmul medium"](), fixed_arithmetic():
        assert torch.get_float32_matmul_precision() == "medium"
        assert cudnn.allow_tf32 in (True, False)
        assert CUDA_MATMUL.allow_tf32


# Whatever older and newer switches a program has used, in any order: it finds what it left, and so
# does what it sets later. In a process of its own, since some cannot be undone.
RESTORED = """
import random, warnings
import torch
from spinlock.runtime.arithmetic import fixed_arithmetic
from tests.process_settings import CUDA_MATMUL, MODERN, answer, cudnn, mkldnn, settings
warnings.simplefilter("ignore")
get, put = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
nodes = [("generic", "all")]
nodes += [(b, k) for b in ("mkldnn", "cuda") for k in ("all", "matmul", "conv", "rnn")]
steps = [lambda n=n, p=p: put(*n, p) for n in nodes for p in ("none", "ieee", "tf32", "bf16")]
for value in ("highest", "high", "medium"):
    steps.append(lambda value=value: torch.set_float32_matmul_precision(value))
for value in (True, False):
    for owner, name in (
        (cudnn, "allow_tf32"), (cudnn, "benchmark"), (CUDA_MATMUL, "allow_tf32"),
        (CUDA_MATMUL, "allow_bf16_reduced_precision_reduction"), (mkldnn, "deterministic"),
    ):
        steps.append(lambda o=owner, n=name, v=value: setattr(o, n, v))

def now_and_later():
    found, generic = [settings()], get("generic", "all")
    for precision in ("ieee", "tf32", "none"):
        put("generic", "all", precision)
        found.append((settings(), [get(*node) for node in nodes]))
    put("generic", "all", generic)
    return found

choose = random.Random(0)
for _ in range(300):
    for _ in range(choose.randrange(4)):
        answer(choose.choice(steps))
    before = now_and_later()
    device = choose.choice(("cpu", "cuda"))
    with fixed_arithmetic(device):
        for kind in ("matmul", "conv", "rnn"):
            assert get("mkldnn", kind) == "ieee"
            assert device == "cpu" or get("cuda", kind) == "ieee"
    assert now_and_later() == before
"""


@pytest.mark.skipif(not MODERN, reason="torch < 2.9 has the older switches only")
def test_what_was_set_is_restored_exactly():
    subprocess.run([sys.executable, "-c", RESTORED], check=True, timeout=200)


@pytest.mark.parametrize("kind", ["blas", "linalg"])
def test_the_libraries_of_cuda_are_chosen(kind, monkeypatch):
    """Torch without CUDA refuses other libraries, so a stand-in keeps the choice."""
    chosen = ["the caller's"]

    def prefer(library=None):
        if library is not None:
            chosen.append(library)
        return chosen[-1]

    default = getattr(cuda, f"preferred_{kind}_library")()
    monkeypatch.setattr(cuda, f"preferred_{kind}_library", prefer)
    monkeypatch.setattr(arithmetic, "_on_cuda", arithmetic._Held(arithmetic._cuda_positions))
    with fixed_arithmetic("cuda"):
        assert chosen == ["the caller's", default]
    assert chosen[-1] == "the caller's"


def test_two_threads_that_enter_first_at_once_restore_the_settings(monkeypatch):
    """The switches are found while both are entering, and are the same for both."""
    found, entered = [], threading.Barrier(2, timeout=10)

    def slowly():
        time.sleep(0.1)
        found.append(arithmetic._positions())
        return found[-1]

    monkeypatch.setattr(arithmetic, "_on_any_device", arithmetic._Held(slowly))

    def compute():
        with fixed_arithmetic():
            entered.wait()  # neither leaves before both have entered
            return torch.get_default_dtype()

    with called(torch.set_default_dtype, torch.float64, torch.float32):
        before = settings()
        with ThreadPoolExecutor(2) as pool:
            tasks = [pool.submit(compute) for _ in range(2)]
            assert [task.result(10) for task in tasks] == [torch.float32] * 2
        assert settings() == before
    assert len(found) == 1


def test_a_forked_process_has_the_settings_of_the_caller():
    before, entered, leave = settings(), threading.Event(), threading.Event()

    def hold():
        with fixed_arithmetic("cuda"):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    assert settings() != before
    child = os.fork()
    if child == 0:
        try:
            same = settings() == before
            with fixed_arithmetic("cuda"):
                pass
            os._exit(0 if same and settings() == before else 1)
        finally:
            os._exit(2)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert settings() == before
