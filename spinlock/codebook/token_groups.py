"""Groups the rows of a token file by token, and reads what the dataset holds of their operators."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from spinlock.codebook.distributions import Population
from spinlock.codebook.token_words import describe_token
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.prototypes import OperatorLatents
from spinlock.simulation.dynamics_rows import dynamics_names
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.reader import read_columns, require_dataset
from spinlock.storage.token_file import TokenFile

# Prototypes of a token that are sought if the token file has none.
_SOUGHT = 8


@dataclass(frozen=True, eq=False)
class TokenGroup:
    """The rows of a token file that have one token.

    Args:
        level: Number of the codebook, from 0.
        code: Index of the code.
        share: Share of the rows that have the token.
        rows: Number of these rows.
        operators: Positions of their operators in `Codebook.operator`, (o,) int64 ascending.
        prototypes: Indices of the operators that the token stands for, nearest first.
    """

    level: int
    code: int
    share: float
    rows: int
    operators: NDArray[np.int64]
    prototypes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Codebook:
    """The tokens of a token file, with the operators of the dataset.

    Args:
        tokens: Token file.
        config: Configuration of the dataset.
        dataset: Name of the dataset file.
        operator: Indices of the operators in the token file, (O,) int64 ascending.
        place: Position of each row's operator among them, (N,) int64.
        dynamics: Their dynamics, (O, D) float64; D = 0 if the dataset has none.
        params: The operators as points of the unit cube, (O, A) float64.
    """

    tokens: TokenFile
    config: GenerationConfig
    dataset: str
    operator: NDArray[np.int64]
    place: NDArray[np.int64]
    dynamics: NDArray[np.float64]
    params: NDArray[np.float64]

    @cached_property
    def levels(self) -> NDArray[np.int64]:
        """Tokens of each codebook, (Q, N) int64."""
        return self.tokens.tokens.reshape(len(self.place), -1).T

    @property
    def num_pooled(self) -> int:
        """Number of samples in a row of the token file."""
        return int(self.tokens.index.reshape(len(self.place), -1).shape[1])

    @cached_property
    def groups(self) -> list[TokenGroup]:
        """The tokens that occur, by codebook and then by share, the most frequent first."""
        return [
            group
            for level, tokens in enumerate(self.levels)
            for group in sorted(self._groups(level, tokens), key=lambda group: -group.rows)
        ]

    @cached_property
    def dynamics_names(self) -> tuple[str, ...]:
        """Names of the D columns of the dynamics."""
        return dynamics_names(self.config)

    @cached_property
    def population(self) -> Population:
        """The dynamics of all operators, with ranks."""
        return Population.of(self.dynamics)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Normal quantiles of their ranks, (O, D)."""
        return self.population.scores

    def name(self, group: TokenGroup) -> str:
        """Return the code of a token, with the number of its codebook if there are several."""
        return f"{group.level + 1}.{group.code}" if len(self.levels) > 1 else str(group.code)

    def words(self, group: TokenGroup) -> list[str]:
        """Return words for what is particular about the dynamics of a token's operators."""
        if not self.dynamics_names:
            return []
        scores = self.scores[group.operators]
        mean = scores.mean(axis=0)
        return describe_token(mean, len(scores), self.dynamics_names, self._alike)

    @cached_property
    def _alike(self) -> NDArray[np.float64]:
        """Correlations (D, D) of the ranks of the dynamics; 0 for constant columns."""
        with np.errstate(invalid="ignore", divide="ignore"):
            alike = np.corrcoef(self.scores, rowvar=False)
        return np.nan_to_num(np.atleast_2d(alike))

    def _groups(self, level: int, tokens: NDArray[np.int64]) -> Iterator[TokenGroup]:
        order = np.argsort(tokens, kind="stable")
        codes, starts = np.unique(tokens[order], return_index=True)
        # Time and memory depend on the rows, and not on the number of codes.
        for code, rows in zip(codes.tolist(), np.split(order, starts[1:]), strict=True):
            operators = np.unique(self.place[rows])
            known = tuple(int(each) for each in self._stand_for(code, rows, operators) if each >= 0)
            yield TokenGroup(level, code, len(rows) / len(tokens), len(rows), operators, known)

    def _stand_for(
        self, code: int, rows: NDArray[np.int64], operators: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return indices of the operators that a token stands for; negative ones are none.

        Args:
            code: Index of the code.
            rows: Rows with the token, (n,) int64.
            operators: Positions of their operators.
        """
        tokens = self.tokens
        if tokens.prototypes is not None:
            return np.asarray(tokens.prototypes[code])
        if tokens.latent is None:
            return self.operator[operators]
        # Tokens of several codebooks share operators, so each is searched among its own.
        some = rows if tokens.training is None else rows[tokens.training[rows]]
        latent = torch.from_numpy(tokens.latent[some])
        latents = OperatorLatents.of(torch.from_numpy(self.operator[self.place[some]]), latent)
        mean = latent.double().mean(dim=0, keepdim=True)
        return np.asarray(latents.nearest(mean, _SOUGHT).operators[0])


def read_codebook(
    tokens: TokenFile, path: str | os.PathLike[str], *, trust: Collection[str] = ()
) -> Codebook:
    """Read what a page about a codebook needs.

    Args:
        tokens: Token file.
        path: Dataset file that the tokens were predicted from.
        trust: Modules whose classes may be imported when operators of the dataset run.

    Raises:
        DatasetError: If the file is not the dataset of the tokens, or a column was changed.
    """
    with DatasetFile.open(path, trust=trust) as dataset:
        config = dataset.config
    if tokens.fingerprint != config.fingerprint:
        given = "no fingerprint" if tokens.fingerprint is None else f"{tokens.fingerprint[:12]}"
        raise DatasetError(
            f"{tokens.path} holds tokens of another dataset: {tokens.dataset or 'no name'}, "
            f"fingerprint {given}; {path} has the fingerprint {config.fingerprint[:12]}. Give the "
            "dataset that the tokens were predicted from"
        )
    require_dataset(path, config)
    count = config.num_samples
    names = [schema.PARAMS, schema.OPERATOR_INDEX]
    names += [schema.DYNAMICS] if config.dynamics else []
    columns = read_columns(path, names, count)
    first = tokens.index.reshape(len(tokens.index), -1)[:, 0]
    if tokens.index.max(initial=0) >= count:
        raise DatasetError(
            f"{tokens.path} has tokens of sample {tokens.index.max()}, and {path} holds the "
            f"samples 0..{count - 1}; give the extended dataset"
        )
    own = columns[schema.OPERATOR_INDEX][first]
    problem = tokens.operator is not None and not np.array_equal(tokens.operator, own)
    last = int(columns[schema.OPERATOR_INDEX][-1])
    if problem or (tokens.prototypes is not None and tokens.prototypes.max(initial=-1) > last):
        raise DatasetError(f"{tokens.path}: its operators are not those of {path}")
    operator, place = np.unique(own, return_inverse=True)
    dynamics = columns.get(schema.DYNAMICS, np.empty((last + 1, 0), dtype=np.float32))
    if not np.isfinite(dynamics).all():
        raise DatasetError(f"{path}: {schema.DYNAMICS} has NaN or infinite values")
    params = columns[schema.PARAMS][operator * config.probes_per_operator]
    return Codebook(
        tokens,
        config,
        os.path.basename(path),
        operator,
        place,
        dynamics[operator].astype(np.float64),
        params.astype(np.float64),
    )
