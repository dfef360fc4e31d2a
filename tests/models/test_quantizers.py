"""Quantizers of every kind: nearest codes, gradients, k-means, replacement of dead codes."""

import sys

import pytest
import torch

from spinlock.errors import ConfigurationError
from spinlock.models.quantizers import QuantizerConfig, make_quantizer

KINDS = {
    "vector": QuantizerConfig(),
    "residual": QuantizerConfig("residual", num_codebooks=3),
    "grouped": QuantizerConfig("grouped", num_codebooks=2),
    "finite_scalar": QuantizerConfig("finite_scalar", levels=[4, 4]),
}


def latents(size=256, dim=4, seed=0):
    return torch.randn(size, dim, generator=torch.Generator().manual_seed(seed))


def made(kind, *, trained=True, codebook_size=16):
    torch.manual_seed(0)
    quantizer = make_quantizer(4, codebook_size, KINDS[kind])
    if trained:
        quantizer.train().initialize(latents(), 32)
    return quantizer


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_stand_for_their_codes(kind):
    quantizer = made(kind).eval()
    code, tokens = quantizer(latents(40, seed=1))
    levels = {"residual": (3,), "grouped": (2,)}.get(kind, ())
    assert code.shape == (40, 4)
    assert tokens.shape == (40, *levels)
    assert tokens.dtype == torch.int64
    assert 0 <= tokens.min() <= tokens.max() < quantizer.codebook_size
    torch.testing.assert_close(quantizer.codes(tokens), code)


def nearest(points, codes):
    return (points[:, None] - codes[None]).square().sum(-1).argmin(1)


def test_each_codebook_takes_its_nearest_code():
    points = latents(40, seed=1)
    vector = made("vector").eval()
    assert torch.equal(vector(points)[1], nearest(points, vector.codebooks[0]))
    grouped = made("grouped").eval()
    tokens = grouped(points)[1]
    for group, part in enumerate(points.chunk(2, dim=1)):
        assert torch.equal(tokens[:, group], nearest(part, grouped.codebooks[group]))
    residual = made("residual").eval()
    tokens, rest = residual(points)[1], points
    for level, codebook in enumerate(residual.codebooks):
        assert torch.equal(tokens[:, level], nearest(rest, codebook))
        rest = rest - codebook[tokens[:, level]]


@pytest.mark.parametrize("kind", ["vector", "residual", "grouped"])
def test_the_gradient_passes_straight_through(kind):
    quantizer = made(kind).train()
    points = latents(32, seed=1).requires_grad_()
    code, _ = quantizer(points)
    weights = latents(32, seed=2)
    (gradient,) = torch.autograd.grad((code * weights).sum(), points)
    torch.testing.assert_close(gradient, weights)
    assert not torch.equal(code, points)


def test_the_gradient_passes_through_the_grid():
    quantizer = made("finite_scalar").train()
    points = latents(32, seed=1).requires_grad_()
    code, _ = quantizer(points)
    (gradient,) = torch.autograd.grad(code.square().sum(), points)
    assert gradient.abs().min() > 0


@pytest.mark.parametrize("kind", ["vector", "residual", "grouped"])
def test_dead_codes_are_revived(kind):
    quantizer = made(kind).train()
    points = latents(256)
    for codebook, book in zip(quantizer.codebooks, quantizer._books, strict=True):
        assert len(codebook) == 16
        # Far from all latents, and without samples in the moving average.
        book._codebook.embed[0, :8] = 1e3
        book._codebook.embed_avg[0, :8] = 0
        book._codebook.cluster_size[0, :8] = 0
    far = [int((c.abs() > 100).any(1).sum()) for c in quantizer.codebooks]
    assert far == [8] * quantizer.num_codebooks
    for _ in range(5):
        quantizer(points)
    assert all((c.abs() < 10).all() for c in quantizer.codebooks)
    tokens = quantizer.eval()(points)[1].view(len(points), -1)
    assert all(len(level.unique()) >= 14 for level in tokens.unbind(1))


def test_codes_that_are_not_to_be_revived_stay_dead():
    torch.manual_seed(0)
    quantizer = make_quantizer(4, 16, QuantizerConfig(dead_code_threshold=0))
    quantizer.train().initialize(latents(), 32)
    book = quantizer._books[0]._codebook
    book.embed[0, :8], book.embed_avg[0, :8], book.cluster_size[0, :8] = 1e3, 1e3, 1
    quantizer(latents())
    assert (quantizer.codebooks[0][:8].abs() > 100).all()


def test_k_means_finds_planted_clusters():
    centers = 10 * latents(16, seed=3)
    points = centers.repeat(20, 1) + 0.01 * latents(320, seed=4)
    torch.manual_seed(0)
    quantizer = make_quantizer(4, 64, QuantizerConfig())
    quantizer.train().initialize(points, 32)
    code, _ = quantizer.eval()(points)
    assert (code - points).square().mean() < 0.001
    # The latents count as one batch of 32.
    assert quantizer._books[0]._codebook.cluster_size.sum() == pytest.approx(32, rel=0.1)


def test_a_codebook_is_initialized_once():
    quantizer = made("vector")
    before = quantizer.codebooks[0].clone()
    assert quantizer.is_initialized
    quantizer.initialize(100 + latents(), 32)
    assert torch.equal(quantizer.codebooks[0], before)


@pytest.mark.parametrize("kind", ["vector", "residual", "grouped"])
def test_without_codes_evaluation_gives_zeros_and_learns_nothing(kind):
    quantizer = made(kind, trained=False).eval()
    code, tokens = quantizer(latents(8))
    assert not code.any()
    assert not tokens.any()
    assert tokens.shape[1:] == made(kind)(latents(8))[1].shape[1:]
    assert not quantizer.is_initialized


@pytest.mark.parametrize("kind", KINDS)
def test_soft_assignments_prefer_the_token(kind):
    quantizer = made(kind).eval()
    points = latents(64, seed=1).requires_grad_()
    tokens = quantizer(points)[1].view(64, -1)
    assignments = quantizer.soft_assignments(points)
    assert len(assignments) == tokens.shape[1]
    for level, assignment in enumerate(assignments):
        torch.testing.assert_close(assignment.sum(1), torch.ones(64))
        assert (assignment.argmax(1) == tokens[:, level]).float().mean() > 0.95
        (gradient,) = torch.autograd.grad(assignment[:, 0].sum(), points, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.any()


def test_soft_assignments_of_a_code_itself_are_finite():
    quantizer = made("vector").eval()
    points = quantizer.codebooks[0].clone().requires_grad_()
    (assignment,) = quantizer.soft_assignments(points)
    assignment.square().sum().backward()
    assert assignment.isfinite().all()
    assert points.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "product"},
            "kind: must be one of 'vector', 'residual', 'grouped'",
        ),
        ({"num_codebooks": 2}, "must be 1 unless kind is residual or grouped; got 2"),
        ({"kind": "residual", "num_codebooks": 0}, "must be at least 1; got 0"),
        ({"kind": "finite_scalar"}, r"levels: required by finite_scalar.*got \[\]"),
        ({"levels": [4]}, r"got \[4\] for vector"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        QuantizerConfig(**options)


def test_sizes_must_fit():
    with pytest.raises(ConfigurationError, match="must be codebook_size=32; got 16"):
        make_quantizer(4, 32, KINDS["finite_scalar"])
    with pytest.raises(ConfigurationError, match=r"must divide latent_dim=5 .*; got 2"):
        make_quantizer(5, 16, KINDS["grouped"])


@pytest.mark.parametrize("kind", ["vector", "finite_scalar"])
def test_the_missing_extra_is_named(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[vqvae\]'"):
        make_quantizer(4, 16, KINDS[kind])
