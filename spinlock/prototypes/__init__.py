"""Prototypes: a token stands for operators, which can be run under any initial condition."""

from spinlock.prototypes.operator_latents import OperatorLatents, token_means
from spinlock.prototypes.prototype_decoder import Prediction, PrototypeDecoder
from spinlock.prototypes.prototype_scores import PrototypeScores, prototype_scores

__all__ = [
    "OperatorLatents",
    "Prediction",
    "PrototypeDecoder",
    "PrototypeScores",
    "prototype_scores",
    "token_means",
]
