"""Settings of a process that a calling program may have changed."""

import math
import sys
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.backends import cudnn, mkldnn, opt_einsum

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
def meta_by_default():
    try:
        with called(torch.set_default_device, "meta", None):
            yield
    finally:
        # torch 2.6 cannot say what the default device is if one was unset, and Lightning asks.
        del torch._GLOBAL_DEVICE_CONTEXT.device_context


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
    "meta": meta_by_default,
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


def clear_caches():
    """Forget every table of the package, so that the next computation makes it anew."""
    names = ("spinlock.features", "spinlock.simulation", "spinlock.checks")
    for name, module in list(sys.modules.items()):
        if name.startswith(names):
            for member in vars(module).values():
                if hasattr(member, "cache_clear"):
                    member.cache_clear()


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
        "device": torch.empty(0).device,
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
