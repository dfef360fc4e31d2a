"""Speed and ratio of compression: `python -m benchmarks.storage [--samples 32]`.

Compresses output fields of the baseline in one thread with each setting. A chunk is one channel, as
in the file, or a whole sample. MB/s count uncompressed values and include the byte shuffle.
"""

import argparse
import time
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from isal import isal_zlib
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.simulation.simulator import Simulator
from spinlock.storage.compression import DEFLATE_LEVEL, decode_chunk, encode_chunk, shuffle

Chunk = NDArray[np.float32]


def measure(chunks: list[Chunk], encode: Callable[[Chunk], bytes]) -> tuple[float, float]:
    """Return the MB/s of one core and the ratio of compressed to uncompressed size."""
    start = time.thread_time()
    stored = sum(len(encode(chunk)) for chunk in chunks)
    seconds = time.thread_time() - start
    given = sum(chunk.nbytes for chunk in chunks)
    return given / seconds / 1e6, stored / given


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=32)
    options = parser.parse_args(args)
    simulator = Simulator(GenerationConfig(options.samples))
    fields = [s.fields[:, :, 0].numpy() for s in simulator.samples(0, options.samples)]
    samples = [sample for unit in fields for sample in unit]
    channels = [np.ascontiguousarray(s[:, c]) for s in samples for c in range(s.shape[1])]
    torch.set_num_threads(1)

    settings: dict[str, Callable[[Chunk], bytes]] = {
        "none": lambda c: encode_chunk(c, "none"),
        "deflate (package)": lambda c: encode_chunk(c, "deflate"),
    }
    for level in range(4):
        settings[f"shuffle + isal {level}"] = lambda c, n=level: isal_zlib.compress(shuffle(c), n)
    settings["shuffle + zlib 1"] = lambda c: zlib.compress(shuffle(c), 1)
    print(f"outputs of {options.samples} baseline samples; the package uses level {DEFLATE_LEVEL}")
    print(f"{'setting':<18} {'chunk = channel':>24} {'chunk = sample':>24}")
    for name, encode in settings.items():
        cells = [
            f"{r:7.0f} MB/s, ratio {q:.3f}"
            for r, q in (measure(c, encode) for c in (channels, samples))
        ]
        print(f"{name:<18} {cells[0]:>24} {cells[1]:>24}")
    stored = [(encode_chunk(chunk, "deflate"), chunk.shape) for chunk in channels]
    start = time.thread_time()
    for packed, shape in stored:
        decode_chunk(packed, "deflate", shape, np.dtype(np.float32))
    rate = sum(chunk.nbytes for chunk in channels) / (time.thread_time() - start) / 1e6
    print(f"reading back: {rate:.0f} MB/s")


if __name__ == "__main__":
    main()
