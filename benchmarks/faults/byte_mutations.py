"""Changes to the bytes of a file, drawn from a seed."""

import random
from collections.abc import Callable
from pathlib import Path

import h5py

#: A change of the bytes of a file.
Change = Callable[[bytearray], None]


def structure_of(path: Path) -> list[range]:
    """Return the ranges of bytes of an HDF5 file that hold no values: what it says about them."""
    values: list[tuple[int, int]] = []

    def note(_: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or item.is_virtual:
            return
        if item.chunks is not None:
            chunks = (item.id.get_chunk_info(k) for k in range(item.id.get_num_chunks()))
            values.extend((chunk.byte_offset, chunk.size) for chunk in chunks)
        elif (start := item.id.get_offset()) is not None:
            values.append((start, item.id.get_storage_size()))

    with h5py.File(path) as file:
        file.visititems(note)
    found, last = [], 0
    for start, size in sorted(values):
        if start > last:
            found.append(range(last, start))
        last = max(last, start + size)
    end = path.stat().st_size
    return found + ([range(last, end)] if end > last else [])


def byte_mutations(seed: int, count: int, places: list[range]) -> dict[str, Change]:
    """Return changes of bytes; two of three begin in the given places."""
    draws = random.Random(seed)
    kinds = list(_KINDS)
    weights = [len(place) for place in places]
    found: dict[str, Change] = {}
    while len(found) < count:
        kind = kinds[len(found) % len(kinds)]
        share = draws.random()
        if places and len(found) % 3:
            place = draws.choices(places, weights)[0]
            position: float | int = draws.choice(place)
        else:
            position = share
        number = draws.randrange(2**32)
        found[f"{len(found)}: {kind} at {position:.6g}"] = _change(_KINDS[kind], position, number)
    return found


def _change(
    edit: Callable[[bytearray, int, random.Random], None], position: float | int, number: int
) -> Change:
    def change(content: bytearray) -> None:
        at = position if isinstance(position, int) else int(position * len(content))
        edit(content, min(at, len(content) - 1), random.Random(number))

    return change


def _flip(content: bytearray, at: int, draws: random.Random) -> None:
    content[at] ^= 1 << draws.randrange(8)


def _set(content: bytearray, at: int, draws: random.Random) -> None:
    content[at] = draws.choice([0, 1, 127, 128, 255])


def _large(content: bytearray, at: int, draws: random.Random) -> None:
    content[at : at + 8] = b"\xff" * len(content[at : at + 8])


def _zeros(content: bytearray, at: int, draws: random.Random) -> None:
    size = len(content[at : at + draws.choice([16, 64, 512])])
    content[at : at + size] = bytes(size)


def _noise(content: bytearray, at: int, draws: random.Random) -> None:
    size = len(content[at : at + 32])
    content[at : at + size] = draws.randbytes(size)


def _cut(content: bytearray, at: int, draws: random.Random) -> None:
    del content[at:]


def _remove(content: bytearray, at: int, draws: random.Random) -> None:
    del content[at : at + draws.choice([1, 8, 100])]


def _insert(content: bytearray, at: int, draws: random.Random) -> None:
    content[at:at] = draws.randbytes(draws.choice([1, 8, 100]))


def _repeat(content: bytearray, at: int, draws: random.Random) -> None:
    """Copy a block of the file to another place, as a disk that mixes up its sectors."""
    other = draws.randrange(len(content))
    size = min(512, len(content) - max(at, other))
    content[at : at + size] = content[other : other + size]


_KINDS = {
    "flipped bit": _flip,
    "another byte": _set,
    "flipped bit (2)": _flip,
    "largest number": _large,
    "zeros": _zeros,
    "noise": _noise,
    "flipped bit (3)": _flip,
    "cut": _cut,
    "removed bytes": _remove,
    "inserted bytes": _insert,
    "repeated block": _repeat,
}
