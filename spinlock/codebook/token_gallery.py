"""Draws the most frequent tokens of a codebook as one plot."""

import os
from collections.abc import Collection

import torch
from matplotlib.figure import Figure

from spinlock.codebook.prototype_pictures import run_prototypes
from spinlock.codebook.token_groups import read_codebook
from spinlock.configuration.validation import require_at_least
from spinlock.plots.field_plots import token_rows
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.token_file import read_tokens


def token_gallery(
    tokens: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    *,
    num_tokens: int = 8,
    device: str | torch.device | None = None,
    trust: Collection[str] = (),
) -> Figure:
    """Plot what the most frequent tokens mean: their nearest prototypes at work.

    This is a picture of the first rows of the page that `write_codebook` writes. Each token has
    a row: its number, its share of the samples, words for the dynamics that its operators share,
    and the fields that its nearest prototype makes of one initial condition of each family. Tokens
    without prototypes are left out.

    Args:
        tokens: Token file.
        dataset: Dataset file that the tokens were predicted from.
        num_tokens: Largest number of tokens to show, default: 8.
        device: Device that runs the prototypes; default: see `spinlock.runtime.device_choice`.
        trust: Modules whose classes may be imported if the dataset names them.

    Raises:
        DatasetNotFoundError: If a file does not exist.
        DatasetError: If a file is not what it should be, or the tokens are of another dataset.
        ConfigurationError: If an argument is out of range, or a class that the dataset names is
            not trusted.
    """
    require_at_least({"num_tokens": num_tokens}, 1)
    book = read_codebook(read_tokens(tokens), dataset, trust=trust)
    ranked = sorted(book.groups, key=lambda group: -group.share)
    groups = [group for group in ranked if group.prototypes][:num_tokens]
    with DatasetFile.open(dataset, trust=trust) as file:
        pictures = run_prototypes(file, groups, 1, device)
    fields = {}
    for group in groups:
        lines = [f"token {book.name(group)} ({group.share:.1%})", *book.words(group)]
        fields["\n".join(lines)] = pictures.fields[group.prototypes[0]].numpy()
    return token_rows(
        pictures.initial.numpy(),
        fields,
        pictures.families,
        step=book.config.num_timesteps,
        title="What the most frequent tokens do: fields (left), and their changes (right)",
    )
