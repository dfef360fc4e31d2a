"""Process-wide settings of the caller change no sample, and are restored afterwards.

Some settings change bytes only on certain processors, for example those with bfloat16 units. So
these tests also inspect the settings during the computation.
"""

import hashlib
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from torch.backends import cudnn, mkldnn, opt_einsum
from torch.nn import functional

from spinlock import SpinlockDataModule
from spinlock.checks import check_dataset
from spinlock.datamodules import SpinlockStream
from spinlock.generation import generate
from spinlock.generation.feature_extraction import extract_features
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.simulation.operator_family import OperatorFamily
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from spinlock.storage import read_info
from tests.helpers import small_config

MODERN = hasattr(torch.backends.cuda.matmul, "fp32_precision")
CUDA_MATMUL = torch.backends.cuda.matmul


@contextmanager
def attribute(owner, name, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def called(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


@contextmanager
def numpy_raises():
    with np.errstate(all="raise"):
        yield


@contextmanager
def several():
    with ExitStack() as stack:
        for name in ("matmul medium", "float64", "meta", "autocast", "numpy raises", "no mkldnn"):
            stack.enter_context(HOSTILE[name]())
        yield


HOSTILE = {
    "matmul high": lambda: called(torch.set_float32_matmul_precision, "high", "highest"),
    "matmul medium": lambda: called(torch.set_float32_matmul_precision, "medium", "highest"),
    "no mkldnn": lambda: attribute(mkldnn, "enabled", False),
    "float64": lambda: called(torch.set_default_dtype, torch.float64, torch.float32),
    "meta": lambda: called(torch.set_default_device, "meta", None),
    "flushed": lambda: called(torch.set_flush_denormal, True, False),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": lambda: called(torch.use_deterministic_algorithms, True, False),
    "numpy raises": numpy_raises,
    "several": several,
}
if MODERN:
    HOSTILE |= {
        "mkldnn bf16": lambda: attribute(mkldnn.matmul, "fp32_precision", "bf16"),
        "mkldnn tf32": lambda: attribute(mkldnn.matmul, "fp32_precision", "tf32"),
        "all bf16": lambda: attribute(torch.backends, "fp32_precision", "bf16"),
        "all tf32": lambda: attribute(torch.backends, "fp32_precision", "tf32"),
    }


class Sensitive(OperatorFamily):
    """A careless operator: types and devices of its tensors are the caller's defaults."""

    def operator(self, values, *, seed, index, channels, precision, device):
        kernel = torch.linspace(-0.1, 0.1, 9 * channels**2).view(channels, channels, 3, 3)
        third = torch.full((1,), 1 / 3)

        def apply(fields):
            padded = functional.pad(fields, (1, 1, 1, 1), mode="circular")
            # On the way through subnormal numbers.
            mixed = functional.conv2d(padded, kernel.float()) * 1e-40 * 1e40
            return (mixed + fields.exp() * third).tanh().float()

        return apply


class Failing(OperatorFamily):
    """An operator that cannot be made."""

    def operator(self, values, **arguments):
        raise ArithmeticError("no such operator")


CONFIGS = {
    "convolutional": small_config(3, num_timesteps=2),
    "bfloat16": small_config(3, precision="bfloat16"),
    "sensitive": small_config(3, operator={"class_path": f"{__name__}.Sensitive"}),
}


def tensors_of(samples):
    features = samples.features
    yield from (samples.initial, samples.fields, samples.initial_features)
    yield from (features.per_timestep, features.per_trajectory, features.aggregated)


def digest(parts):
    found = hashlib.sha256()
    for samples in parts:
        for tensor in tensors_of(samples):
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def in_threads(config):
    """The samples, computed in the threads of the process."""
    return digest(Simulator(config, "cpu").samples(0, config.num_samples))


def in_this_thread(config):
    """The samples, computed in the calling thread, as those of a CUDA device are."""
    simulator, design = Simulator(config, "cpu"), make_design(config, 0, config.num_samples)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = range(config.num_samples)
        return digest(simulator._simulate(design.rows(i, i + 1), range(i, i + 1)) for i in rows)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def expected():
    return {
        (compute.__name__, name): compute(config)
        for compute in (in_threads, in_this_thread)
        for name, config in CONFIGS.items()
    }


def flushes():
    return math.nextafter(0.0, 1.0) * 1.0 == 0.0


def answer(question):
    try:
        return question()
    except RuntimeError as error:
        return type(error).__name__


def settings():
    """What the calling program would find."""
    found = {
        "matmul": answer(torch.get_float32_matmul_precision),
        "cudnn tf32": answer(lambda: cudnn.allow_tf32),
        "cuda tf32": answer(lambda: CUDA_MATMUL.allow_tf32),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        "mkldnn": (mkldnn.enabled, answer(lambda: mkldnn.deterministic)),
        "sums": (
            CUDA_MATMUL.allow_fp16_reduced_precision_reduction,
            CUDA_MATMUL.allow_bf16_reduced_precision_reduction,
        ),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "numpy": np.geterr(),
        "flushes": flushes(),
        "einsum": opt_einsum.enabled,
    }
    if MODERN:
        found["precisions"] = [
            torch.backends.fp32_precision,
            mkldnn.fp32_precision,
            *(getattr(mkldnn, kind).fp32_precision for kind in ("matmul", "conv", "rnn")),
            CUDA_MATMUL.fp32_precision,
            cudnn.conv.fp32_precision,
            cudnn.rnn.fp32_precision,
        ]
    return found


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("compute", [in_threads, in_this_thread])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_setting_changes_a_sample(hostile, compute, config, expected):
    with HOSTILE[hostile]():
        before = settings()
        found = compute(CONFIGS[config])
        assert settings() == before
    assert found == expected[compute.__name__, config]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_settings_in_force_while_a_unit_is_computed(hostile, monkeypatch):
    inside = []
    original = Simulator._simulate_unit

    def recorded(self, unit, wanted):
        inside.append(settings())
        return original(self, unit, wanted)

    monkeypatch.setattr(Simulator, "_simulate_unit", recorded)
    with HOSTILE[hostile]():
        in_this_thread(CONFIGS["convolutional"])
        # New threads inherit what this one has set.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(in_this_thread, CONFIGS["convolutional"]).result()
    assert len(inside) == 6
    for found in inside:
        assert found["mkldnn"][0] is True
        assert not found["deterministic"]
        assert found["dtype"] is torch.float32
        assert not found["autocast"]
        assert found["numpy"]["under"] == "ignore"
        assert found["numpy"]["over"] == "warn"
        assert not found["flushes"]
        if MODERN:
            assert mkldnn_precisions(found) == {"ieee"}
        else:
            assert found["matmul"] == "highest"


def mkldnn_precisions(found):
    return set(found["precisions"][1:5])


@pytest.mark.parametrize("hostile", ["matmul medium", "float64", "flushed", "several"])
def test_an_error_restores_the_settings(hostile):
    config = small_config(2, operator={"class_path": f"{__name__}.Failing"})
    with HOSTILE[hostile]():
        before = settings()
        for compute in (in_threads, in_this_thread):
            with pytest.raises(ArithmeticError, match="no such operator"):
                compute(config)
            assert settings() == before


def test_simulations_side_by_side_keep_the_settings_of_the_caller(expected):
    names = [*CONFIGS, *CONFIGS]
    with HOSTILE["matmul medium"](), ThreadPoolExecutor(len(names)) as pool:
        before = settings()
        for _ in range(3):
            found = pool.map(lambda name: in_this_thread(CONFIGS[name]), names)
            assert list(found) == [expected["in_this_thread", name] for name in names]
            assert settings() == before


def cuda_precision():
    return CUDA_MATMUL.fp32_precision == "tf32" if MODERN else CUDA_MATMUL.allow_tf32


@pytest.mark.parametrize(
    "precisions", [("float32", "tf32"), ("tf32", "tf32"), ("bfloat16", "tf32", "float32")]
)
def test_threads_never_see_the_switches_of_another_precision(precisions):
    before, seen = settings(), []
    start = threading.Barrier(len(precisions))

    def compute(precision):
        start.wait()
        for _ in range(200):
            with fixed_arithmetic(precision, "cuda"):
                for _ in range(3):
                    seen.append((cuda_precision(), cudnn.benchmark) == (precision == "tf32", False))
                    time.sleep(0)

    with ThreadPoolExecutor(len(precisions)) as pool:
        for task in [pool.submit(compute, precision) for precision in precisions]:
            task.result()
    assert len(seen) == 600 * len(precisions)
    assert all(seen)
    assert settings() == before


def test_two_precisions_at_once_in_one_thread_are_refused():
    with fixed_arithmetic("float32", "cuda"):
        with fixed_arithmetic("bfloat16", "cuda"):
            assert not cuda_precision()
        with (
            pytest.raises(RuntimeError, match="computing already, in another precision"),
            fixed_arithmetic("tf32", "cuda"),
        ):
            pass
        assert not cuda_precision()


def test_a_switch_turned_meanwhile_is_turned_back_and_then_left():
    """The caller may change its mind while threads compute in the background."""
    with called(torch.set_default_dtype, torch.float32, torch.float32), HOSTILE["no mkldnn"]():
        with fixed_arithmetic("float32"):
            mkldnn.enabled = False
            with fixed_arithmetic("float32"):
                assert mkldnn.enabled
            torch.set_default_dtype(torch.float64)
        assert torch.get_default_dtype() is torch.float64
        assert not mkldnn.enabled


@pytest.mark.skipif(not MODERN, reason="torch < 2.9 has the older switches only")
def test_older_getters_work_while_a_processor_computes():
    with HOSTILE["matmul medium"](), fixed_arithmetic("tf32", "cpu"):
        assert torch.get_float32_matmul_precision() == "medium"
        assert cudnn.allow_tf32 in (True, False)
        assert CUDA_MATMUL.allow_tf32


# Whatever older and newer switches a program has used, in any order: it finds what it left, and so
# does what it sets later. In a process of its own, since some cannot be undone.
RESTORED = """
import random, warnings
import torch
from spinlock.runtime.arithmetic import fixed_arithmetic
from tests.test_process_settings import CUDA_MATMUL, MODERN, answer, cudnn, mkldnn, settings
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
    device, precision = choose.choice(("cpu", "cuda")), choose.choice(("float32", "tf32"))
    with fixed_arithmetic(precision, device):
        wanted = "tf32" if (device, precision) == ("cuda", "tf32") else "ieee"
        for kind in ("matmul", "conv", "rnn"):
            assert get("mkldnn", kind) == "ieee"
            assert device == "cpu" or get("cuda", kind) == wanted
    assert now_and_later() == before
"""


@pytest.mark.skipif(not MODERN, reason="torch < 2.9 has the older switches only")
def test_what_was_set_is_restored_exactly():
    subprocess.run([sys.executable, "-c", RESTORED], check=True, timeout=200)


def test_a_forked_process_has_the_settings_of_the_caller():
    before, entered, leave = settings(), threading.Event(), threading.Event()

    def hold():
        with fixed_arithmetic("float32", "cuda"):
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
            with fixed_arithmetic("tf32", "cuda"):
                pass
            os._exit(0 if same and settings() == before else 1)
        finally:
            os._exit(2)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert settings() == before


DEFAULTS = ["meta", "float64", "numpy raises", "several"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("defaults") / "a.h5"
    config = small_config(40, num_timesteps=2, probes_per_operator=2, num_realizations=2)
    generate(config, path, device="cpu", progress=False)
    return path, config


def measurements(path):
    rows = check_dataset(path, device="cpu", progress=False).rows
    return [(row.group, row.name, row.measured) for row in rows]


@pytest.fixture(scope="module")
def measured(dataset):
    return measurements(dataset[0])


@pytest.mark.parametrize("hostile", DEFAULTS)
def test_files_are_made_and_checked_alike_under_any_defaults(hostile, dataset, measured, tmp_path):
    path, config = dataset
    with HOSTILE[hostile]():
        generate(config, tmp_path / "a.h5", device="cpu", progress=False)
        assert read_info(tmp_path / "a.h5").digest == read_info(path).digest
        assert not extract_features(path, device="cpu", progress=False).changed
        assert measurements(path) == measured


def batches_of(path, config, **options):
    """The bytes of all batches; read as a loader's workers read them."""
    module = SpinlockDataModule(path, config, batch_size=4, device="cpu", **options)
    module.setup()
    found = []
    for loader in (module.train_dataloader(), module.val_dataloader(), module.predict_dataloader()):
        for rows in loader.batch_sampler:
            batch = loader.dataset.__getitems__(rows)
            found += [(key, v.dtype, v.numpy().tobytes()) for key, v in batch.items()]
    return found


@pytest.mark.parametrize("hostile", DEFAULTS)
@pytest.mark.parametrize(
    "options",
    [
        {"view": "features", "scaling": "rank"},
        {"view": "sequence", "scaling": "robust"},
        {"view": "pairs"},
        {"view": "both", "balance": "family", "realizations": "one"},
    ],
    ids=lambda options: options["view"],
)
def test_batches_are_the_same_under_any_defaults(options, hostile, dataset):
    expected = batches_of(*dataset, **options)
    with HOSTILE[hostile]():
        assert batches_of(*dataset, **options) == expected


@pytest.mark.parametrize("hostile", DEFAULTS)
def test_streams_are_the_same_under_any_defaults(hostile, dataset):
    def stream():
        batches = SpinlockStream(dataset[1], batch_size=5, num_batches=2, device="cpu")
        return [{k: v.numpy().tobytes() for k, v in batch.items()} for batch in batches]

    expected = stream()
    with HOSTILE[hostile]():
        assert stream() == expected
