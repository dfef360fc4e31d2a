"""Figures of tokens under two probes that need more than one epoch's counts: given the variant."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spinlock import metrics
from spinlock.callbacks.baselines import r_squared
from spinlock.datamodules import SpinlockDataModule
from spinlock.models import FeatureVQVAE


def pair_figures(model: FeatureVQVAE, datamodule: SpinlockDataModule) -> dict[str, float]:
    """What the tokens of the test split's pairs say of the operator alone.

    The probes of an operator are dealt different variants by design, so the variant of probe A
    tells that of probe B, and tokens of the initial condition have mutual information as well.
    Within one variant of A (hence, nearly always, of B) they have none.

    Returns:
        - ``pairs/token_ami_given_variant``: adjusted mutual information of the tokens under A and
          B, given the variant of A;
        - ``pairs/agreement_given_variant``: fraction of pairs of equal tokens, less what pairs of
          operators that met the same variant agree by chance;
        - ``pairs/cross_probe_r2/<policy>``, ``pairs/shuffled_tokens_r2/<policy>``: as
          ``OperatorConsistency`` has them, among the operators of one update policy, tokens
          shuffled within it.
    """
    batches = list(_first_loader(datamodule))
    batch = {key: torch.cat([b[key] for b in batches]) for key in batches[0]}
    model.eval()
    with torch.no_grad():
        tokens = model(batch)["tokens"]
        figures = _agreement(model, tokens, batch)
        for number, policy in enumerate(datamodule.update_policy_names):
            rows = {key: value[batch["update_policy"] == number] for key, value in batch.items()}
            own = tokens[batch["update_policy"] == number]
            shuffled = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))]
            figures[f"pairs/cross_probe_r2/{policy}"] = _cross_r2(model, own, rows)
            figures[f"pairs/shuffled_tokens_r2/{policy}"] = _cross_r2(model, shuffled, rows)
    return figures


def _agreement(
    model: FeatureVQVAE, tokens: Tensor, batch: Mapping[str, Tensor]
) -> dict[str, float]:
    size, variants = model.codebook_size, model.num_variants
    # Each pair once: probe A is the first one met.
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


def _first_loader(datamodule: SpinlockDataModule) -> torch.utils.data.DataLoader[dict[str, Tensor]]:
    loaders = datamodule.test_dataloader()
    return loaders[0] if isinstance(loaders, list) else loaders
