"""Scores of sets of probes and of dynamics in OperatorConsistency."""

import pytest
import torch
from sklearn.metrics import r2_score

from spinlock import metrics
from tests.callbacks import DecodingModel
from tests.callbacks.consistency import SCORES, case, spoilt_case, validate


class Quantizing(DecodingModel):
    """Tokens are those of the nearest code, by its first columns."""

    def quantize(self, latent):
        return torch.cdist(latent, self.codes[:, :4]).argmin(1)


class Residual(Quantizing):
    """Two levels of tokens."""

    def quantize(self, latent):
        token = super().quantize(latent)
        return torch.stack([token // 8, token % 8], 1)


@pytest.mark.parametrize(("probes", "size"), [(4, 2), (5, 2), (6, 3)])
@pytest.mark.parametrize("model", [Quantizing, Residual])
def test_sets_of_probes_by_hand(tmp_path, probes, size, model):
    data, codes = spoilt_case(probes)
    columns = data.val.columns
    logged = validate(tmp_path, model(codes), data)
    columns = {key: column[columns["index"].argsort()] for key, column in columns.items()}
    latents = codes[columns["tokens"]][:, :4].double().view(240 // probes, probes, 4)
    first, second = latents[:, :size].mean(1), latents[:, size : 2 * size].mean(1)
    tokens = [torch.cdist(s, codes[:, :4].double()).argmin(1) for s in (first, second)]
    families = columns["family"].view(-1, probes)
    kinds = [
        [tuple(sorted(row)) for row in part.tolist()]
        for part in (families[:, :size], families[:, size : 2 * size])
    ]
    numbers = {kind: n for n, kind in enumerate(dict.fromkeys(kinds[0] + kinds[1]))}
    operators = torch.arange(len(latents)).repeat(2)
    labels = torch.tensor([numbers[kind] for kind in kinds[0] + kinds[1]])
    expected = metrics.same_token_rate(torch.cat(tokens), labels, operators).above_chance.item()
    assert logged["set_same_token"] == pytest.approx(expected, rel=1e-5)
    nearest = [torch.cdist(*pair).argmin(1) for pair in ((first, second), (second, first))]
    found = torch.stack([rows == torch.arange(len(rows)) for rows in nearest])
    assert logged["set_retrieval"] == pytest.approx(found.double().mean().item(), abs=0.01)
    assert 0 < logged["set_same_token"] < 1


def test_sets_are_better_if_probes_are_noise(tmp_path):
    data, codes = case(4)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(240, 4, generator=generator)
    data.val.columns["noisy"] = codes[data.val.columns["tokens"]][:, :4] + 0.15 * noise
    model = Quantizing(codes)

    def step(batch, batch_idx):
        return {"tokens": model.quantize(batch["noisy"]), "latent": batch["noisy"]}

    model.validation_step = step
    logged = validate(tmp_path, model, data)
    assert 0.1 < logged["same_token"] < logged["set_same_token"] - 0.1
    assert 0.1 < logged["retrieval"] < logged["set_retrieval"] - 0.1


def test_without_quantize_or_latent_there_are_fewer_scores(tmp_path):
    data, codes = spoilt_case(4)
    logged = validate(tmp_path, DecodingModel(codes), data)
    assert set(logged) == SCORES | {"set_retrieval"}
    model = Quantizing(codes)
    model.validation_step = lambda batch, batch_idx: {"tokens": batch["tokens"]}
    assert set(validate(tmp_path, model, data)) == SCORES - {"retrieval", "retrieval_candidates"}


def test_dynamics_by_hand(tmp_path):
    """One column of the policy, one that tokens name beyond it, and one of nothing."""
    data, codes = case(size=600)
    columns = data.val.columns
    generator = torch.Generator().manual_seed(0)
    operator, policy = columns["operator"] - 1000, columns["update_policy"]
    code = torch.randint(4, (300,), generator=generator)[operator]
    columns["tokens"] = 3 * code + policy
    noise = torch.randn(300, 3, generator=generator)[operator]
    columns["dynamics"] = torch.stack([5.0 * policy, 5.0 * policy + code, 0.0 * code], 1) + noise
    data.dynamics_names = ("policy", "code", "nothing")
    logged = validate(tmp_path, DecodingModel(codes[:12]), data)
    values, tokens, numbers = columns["dynamics"], columns["tokens"], columns["operator"]
    predicted = metrics.predict_from_tokens(values, tokens, numbers)
    r2 = r2_score(values, predicted, multioutput="raw_values")
    for name, expected in zip(data.dynamics_names, r2, strict=True):
        assert logged[f"dynamics_r2/{name}"] == pytest.approx(expected, rel=1e-4)
        assert abs(logged[f"dynamics_r2_shuffled/{name}"]) < 0.05
    assert logged["dynamics_r2"] == pytest.approx(r2.mean(), rel=1e-4)
    assert logged["dynamics_r2/policy"] > 0.9
    # What the policy explains does not count within policies.
    assert abs(logged["dynamics_r2_within_policy/policy"]) < 0.05
    # A code has a variance of 5 / 4, the noise of 1.
    assert logged["dynamics_r2_within_policy/code"] == pytest.approx(5 / 9, abs=0.1)
    assert abs(logged["dynamics_r2_within_policy/nothing"]) < 0.05
    assert abs(logged["dynamics_r2_shuffled"]) < 0.03


def test_decoded_dynamics_by_hand(tmp_path):
    data, codes = case()
    columns = data.val.columns
    generator = torch.Generator().manual_seed(0)
    policy = columns["update_policy"]
    values = 5.0 * policy + torch.randn(240, generator=generator)
    columns["dynamics"] = values[:, None]
    columns["decoded"] = columns["dynamics"] + torch.randn(240, 1, generator=generator) / 2
    data.dynamics_names = ("only",)

    class Decoding(DecodingModel):
        def validation_step(self, batch, batch_idx):
            return {"tokens": batch["tokens"], "dynamics": batch["decoded"]}

    logged = validate(tmp_path, Decoding(codes), data)
    r2 = r2_score(values, columns["decoded"])
    means = torch.stack([values[policy == n].mean() for n in range(3)])[policy]
    within = r2_score(values - means, columns["decoded"][:, 0] - means)
    for name in ("", "/only"):
        assert logged[f"decoded_dynamics_r2{name}"] == pytest.approx(r2, rel=1e-5)
        assert logged[f"decoded_dynamics_r2_within_policy{name}"] == pytest.approx(within, rel=1e-5)
    assert r2 > 0.95
    assert within < 0.85
