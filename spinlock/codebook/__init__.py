"""Page about a codebook: what each token means, by the operators that it stands for."""

from spinlock.codebook.codebook_builder import write_codebook
from spinlock.codebook.token_gallery import token_gallery

__all__ = ["token_gallery", "write_codebook"]
