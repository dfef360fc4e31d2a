"""Builds the page about a codebook: one self-contained HTML page."""

import os
from collections.abc import Collection
from itertools import groupby, islice
from pathlib import Path

import torch

from spinlock.codebook.codebook_page import KIND, CodebookPage
from spinlock.codebook.prototype_pictures import run_prototypes
from spinlock.codebook.token_groups import Codebook, read_codebook
from spinlock.configuration.validation import require_at_least
from spinlock.report.html_parts import page_start
from spinlock.runtime.output_files import Kind, check_output, new_file
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.token_file import read_tokens

# The first bytes, by which an existing page is recognized.
PAGE = Kind("codebook page of Spinlock", page_start(KIND).encode())


def write_codebook(
    tokens: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    num_prototypes: int = 4,
    max_tokens: int = 256,
    device: str | torch.device | None = None,
    trust: Collection[str] = (),
    force: bool = False,
    progress: bool = True,
) -> Codebook:
    """Write a page that shows what each token means.

    This is what ``spinlock codebook TOKENS --dataset DATASET --out PAGE`` does. It runs the
    prototypes of each token, so it takes about as long as generating four samples for each of them.

    Args:
        tokens: Token file.
        dataset: Dataset file that the tokens were predicted from.
        out: Path of the page to write.
        num_prototypes: Number of prototypes of a token to run, default: 4.
        max_tokens: Largest number of tokens on the page, the most frequent ones; several codebooks
            share it equally. Default: 256.
        device: Device to compute on; default: see `spinlock.runtime.device_choice`.
        trust: Modules whose classes may be imported if the dataset names them.
        force: Whether to replace an existing page about a codebook at ``out``. Other files are
            never replaced.
        progress: Whether to show progress.

    Returns:
        The content of the page.

    Raises:
        DatasetNotFoundError: If a file does not exist.
        DatasetError: If a file is not what it should be, or the tokens are of another dataset.
        ConfigurationError: If an argument is out of range, ``out`` is refused, or a class that the
            dataset names is not trusted.
    """
    require_at_least({"num_prototypes": num_prototypes, "max_tokens": max_tokens}, 1)
    check_output(out, PAGE, source=tokens, force=force)
    with new_file(out, PAGE, source=dataset, force=force) as temporary:
        codebook = read_codebook(read_tokens(tokens), dataset, trust=trust)
        # The first codebooks have one token more if the number cannot be shared equally.
        share, rest = divmod(max_tokens, len(codebook.levels))
        by_level = groupby(codebook.groups, lambda group: group.level)
        shown = [
            group for level, groups in by_level for group in islice(groups, share + (level < rest))
        ]
        with DatasetFile.open(dataset, trust=trust) as file:
            title = f"{Path(dataset).name}: prototypes of {len(shown)} tokens"
            pictures = run_prototypes(
                file, shown, num_prototypes, device, title=title if progress else ""
            )
        page = CodebookPage(codebook, shown, pictures, num_prototypes)
        temporary.write_text(page.html(), encoding="utf-8")
    return codebook
