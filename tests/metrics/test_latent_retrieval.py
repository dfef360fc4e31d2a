"""Retrieval against scipy's distances, with ties, draws and chunks."""

import pytest
import torch
from scipy.spatial.distance import cdist

from spinlock import metrics
from spinlock.metrics import latent_retrieval


def latents(operators=60, probes=3, noise=0.5):
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(operators, 1, 4, generator=generator)
    return own + noise * torch.randn(operators, probes, 4, generator=generator)


def test_rate_is_that_of_the_nearest_next_probe():
    values = latents().numpy()
    found = []
    for probe in range(3):
        nearest = cdist(values[:, probe], values[:, (probe + 1) % 3]).argmin(1)
        found.append((nearest == range(60)).mean())
    rate, candidates = metrics.retrieval(latents())
    assert rate.item() == pytest.approx(sum(found) / 3)
    assert 0.1 < rate < 0.9
    assert candidates == 60


def test_distances_in_chunks_give_the_same(monkeypatch):
    expected = metrics.retrieval(latents())
    monkeypatch.setattr(latent_retrieval, "_DISTANCES", 130)
    assert metrics.retrieval(latents()).rate.item() == pytest.approx(expected.rate.item())


def test_equally_near_candidates_share():
    assert metrics.retrieval(torch.ones(8, 2, 3)).rate.item() == pytest.approx(1 / 8)
    # Pairs of operators with equal latents.
    pairs = latents(noise=0).repeat_interleave(2, 0)
    assert metrics.retrieval(pairs).rate.item() == pytest.approx(1 / 2)
    assert metrics.retrieval(latents(noise=0)).rate == 1


def test_candidates_are_drawn_if_there_are_more():
    values = latents()
    few, number = metrics.retrieval(values, num_candidates=5)
    assert number == 5
    # Fewer candidates are easier to find the right one among.
    rates = [metrics.retrieval(values, num_candidates=5, seed=s).rate for s in range(20)]
    assert rates[0] == few
    assert len(set(map(float, rates))) > 3
    assert torch.stack(rates).mean() > metrics.retrieval(values).rate + 0.1
    assert metrics.retrieval(values, num_candidates=60) == metrics.retrieval(values)


def test_one_probe_retrieves_nothing():
    assert metrics.retrieval(latents()[:, :1]).rate.isnan()
    assert metrics.retrieval(latents()[:0]).rate.isnan()


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_candidates: must be at least 1, got 0"):
        metrics.retrieval(latents(), num_candidates=0)
    with pytest.raises(ValueError, match=r"must be \[operators, probes, D\], got \[60, 4\]"):
        metrics.retrieval(latents()[:, 0])
