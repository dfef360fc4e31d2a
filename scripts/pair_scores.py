"""Scores that compare the tokens of two probes over all pairs of the test split."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spinlock import metrics
from spinlock.callbacks.baselines import r_squared
from spinlock.datamodules import SpinlockDataModule
from spinlock.models import FeatureVQVAE


def pair_scores(model: FeatureVQVAE, datamodule: SpinlockDataModule) -> dict[str, float]:
    """Measure how well the tokens of the test split's pairs identify the operator.

    By design, the two probes of an operator belong to different variants. The variant of probe A is
    therefore evidence for the variant of probe B, and tokens that depend on the variant alone have
    mutual information too. Given the variant of A, which nearly always determines that of B, they
    have none.

    Returns:
        - ``pairs/token_ami_given_variant``: adjusted mutual information of the tokens of A and B,
          given the variant of A;
        - ``pairs/agreement_given_variant``: fraction of pairs with equal tokens, minus the fraction
          expected by chance among operators with the same variant;
        - ``pairs/cross_probe_r2/<policy>`` and ``pairs/shuffled_tokens_r2/<policy>``: scores of
          ``OperatorConsistency`` among the operators of one update policy, with tokens shuffled
          among these operators.
    """
    loaders = datamodule.test_dataloader()
    batches = list(loaders[0] if isinstance(loaders, list) else loaders)
    batch = {key: torch.cat([b[key] for b in batches]) for key in batches[0]}
    model.eval()
    with torch.no_grad():
        tokens = model(batch)["tokens"]
        scores = _agreement(model, tokens, batch)
        for number, policy in enumerate(datamodule.update_policy_names):
            rows = {key: value[batch["update_policy"] == number] for key, value in batch.items()}
            own = tokens[batch["update_policy"] == number]
            shuffled = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))]
            scores[f"pairs/cross_probe_r2/{policy}"] = _cross_r2(model, own, rows)
            scores[f"pairs/shuffled_tokens_r2/{policy}"] = _cross_r2(model, shuffled, rows)
    return scores


def _agreement(
    model: FeatureVQVAE, tokens: Tensor, batch: Mapping[str, Tensor]
) -> dict[str, float]:
    size, variants = model.codebook_size, model.num_variants
    # Each pair has two rows in the batch. Its probe A is the one with the lower index.
    once = batch["index"] < batch["other_index"]
    place = {int(index): row for row, index in enumerate(batch["index"])}
    other = torch.tensor([place[int(index)] for index in batch["other_index"][once]])
    a, b, variant = tokens[once], tokens[other], batch["variant"][once]
    cells = (variant * size + a) * size + b
    table = torch.bincount(cells, minlength=variants * size**2).view(variants, size, size)
    present = table.sum((1, 2)) > 0
    ami = metrics.conditional_mutual_information(table[present], adjusted=True)
    equal = (a == b).double().mean()
    counts = table[present].double()
    share = counts.sum((1, 2)) / counts.sum()
    given_a, given_b = counts.sum(2), counts.sum(1)
    chance = (given_a * given_b).sum(1) / counts.sum((1, 2)).square()
    return {
        "pairs/token_ami_given_variant": ami.item(),
        "pairs/agreement_given_variant": (equal - share @ chance).item(),
    }


def _cross_r2(model: FeatureVQVAE, tokens: Tensor, batch: Mapping[str, Tensor]) -> float:
    keys = ("initial_features", "variant")
    decoded = model.decode(tokens, {key: batch[f"other_{key}"] for key in keys})
    return r_squared(decoded, batch["other_features"])
