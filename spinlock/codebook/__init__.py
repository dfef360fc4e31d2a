"""Page about a codebook: what each token means, by the operators that it stands for."""

from spinlock.codebook.codebook_builder import write_codebook

__all__ = ["write_codebook"]
