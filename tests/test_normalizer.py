"""The embedding normaliser against numpy, scikit-learn and its own laws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from nlptrain.models.load import load
from nlptrain.models.moments import Moments
from nlptrain.models.normalizer import EmbeddingNormalizer
from tests.tiny import built, tiny_model_dir

SIZE, ROWS, DEAD = 24, 500, 7
AFFINE = ["standardize", "whiten", "all_but_the_top"]


def embeddings(seed: int = 0) -> Tensor:
    """Correlated float32 rows whose features have means and spreads of several sizes, and one constant feature."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(ROWS, SIZE)) @ rng.normal(size=(SIZE, SIZE)) * np.geomspace(0.3, 10, SIZE)
    rows += rng.normal(size=SIZE)
    rows[:, DEAD] = 0.123
    return torch.tensor(rows, dtype=torch.float32)


def moments(*batches: Tensor) -> Moments:
    found = Moments(SIZE)
    for batch in batches:
        found.update(batch)
    return found


def fitted(kind: str, rows: Tensor, components: int | None = None) -> EmbeddingNormalizer:
    normalizer = EmbeddingNormalizer(kind, rows.shape[1], components)
    normalizer.fit(moments(*rows.split(64)))
    return normalizer


def double(rows: Tensor) -> Any:
    return rows.double().numpy()


@pytest.mark.parametrize("size", [1, 64, ROWS])
def test_moments_of_batches_are_those_of_all_rows_at_once(size: int) -> None:
    rows = embeddings() + 1e3
    found = moments(*rows.split(size))
    np.testing.assert_allclose(found.mean, double(rows).mean(0), rtol=1e-13)
    expected = np.cov(double(rows).T, bias=True)
    np.testing.assert_allclose(found.scatter / found.rows, expected, atol=1e-12 * expected.max())


def test_l2_is_scikit_learns_and_leaves_zero_alone() -> None:
    rows = torch.cat([embeddings(), torch.zeros(1, SIZE)])
    found = EmbeddingNormalizer("l2", SIZE)(rows)
    np.testing.assert_allclose(found, normalize(double(rows)), atol=1e-6)
    assert not found[-1].any()


def test_standardized_rows_are_scikit_learns_and_a_dead_feature_is_exactly_zero() -> None:
    rows = embeddings()
    normalizer = fitted("standardize", rows)
    found, live = normalizer(rows), np.arange(SIZE) != DEAD
    np.testing.assert_allclose(found[:, live], StandardScaler().fit_transform(double(rows))[:, live], atol=1e-5)
    assert np.abs(double(found)[:, live].mean(0)).max() <= 1e-6
    assert np.abs(double(found)[:, live].std(0) - 1).max() <= 1e-6
    assert not found[:, DEAD].any()
    assert not normalizer(embeddings(1) + 5)[:, DEAD].any()
    assert normalizer.report() == {"normalized_rows": ROWS, "dead_features": 1}


def test_a_feature_that_only_rounds_is_dead_also_where_most_are() -> None:
    rows = embeddings()
    rows[:, : SIZE - 4] = 0.1 + 1e-30 * rows[:, : SIZE - 4]
    assert fitted("standardize", rows).report()["dead_features"] == SIZE - 4


@pytest.mark.parametrize("components", [None, 5])
def test_whitened_rows_are_scikit_learns_up_to_sign_with_unit_covariance(components: int | None) -> None:
    rows = embeddings()
    normalizer = fitted("whiten", rows, components)
    found, kept = double(normalizer(rows)), components or SIZE - 1
    # scikit-learn divides by the std of n - 1
    expected = PCA(kept, whiten=True, svd_solver="full").fit_transform(double(rows)) * np.sqrt(ROWS / (ROWS - 1))
    np.testing.assert_allclose(np.abs(found[:, :kept]), np.abs(expected), atol=1e-5)
    assert found.shape == (ROWS, components or SIZE)
    covariance = np.cov(found[:, :kept].T, bias=True)
    assert np.abs(covariance - np.eye(kept)).max() <= 1e-6
    assert not found[:, kept:].any()
    assert normalizer.report()["kept_components"] == kept


def test_whitening_all_directions_in_float32_would_not_give_unit_covariance() -> None:
    rows = embeddings()
    values, vectors = np.linalg.eigh(np.cov(rows.numpy().T, bias=True))
    naive = (rows.numpy() - rows.numpy().mean(0)) @ (vectors / np.sqrt(np.abs(values))).astype(np.float32)
    assert np.abs(np.cov(naive.T, bias=True) - np.eye(SIZE)).max() > 0.1


def test_all_but_the_top_removes_mean_and_first_principal_components() -> None:
    rows = embeddings()
    found = double(fitted("all_but_the_top", rows, 3)(rows))
    top = PCA(3, svd_solver="full").fit(double(rows))
    centred = double(rows) - top.mean_
    expected = centred - centred @ top.components_.T @ top.components_
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found @ top.components_.T).max() <= 1e-5 * np.abs(centred).max()
    assert fitted("all_but_the_top", rows).components == 1
    assert EmbeddingNormalizer("all_but_the_top", 768).components == 8


@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize("wide", [False, True])
def test_folded_layer_gives_the_logits_of_the_normalised_embedding(kind: str, wide: bool) -> None:
    rows = embeddings()
    normalizer = fitted(kind, rows, None if kind == "standardize" else 6)
    linear = nn.Linear(SIZE if wide else normalizer.output_size, 3)
    inputs = nn.functional.pad(normalizer(rows), (0, linear.in_features - normalizer.output_size))
    folded = normalizer.fold_into_linear(linear)
    assert (folded.in_features, folded.weight.dtype) == (SIZE, torch.float32)
    # to 1e-6 in exact inputs; float32 ones add the rounding of |W| |x|
    torch.testing.assert_close(folded.double()(rows.double()), linear.double()(inputs.double()), atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize("kind", AFFINE)
def test_folding_is_exact_to_one_millionth_on_embeddings_of_unit_size(kind: str) -> None:
    rows = torch.randn(ROWS, SIZE) + 0.5
    normalizer, linear = fitted(kind, rows), nn.Linear(SIZE, 3)
    nn.init.normal_(linear.weight, std=0.02)
    torch.testing.assert_close(normalizer.fold_into_linear(linear)(rows), linear(normalizer(rows)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize("architecture", ["cross_encoder", "bi_encoder"])
def test_a_fitted_normaliser_survives_saving_bit_by_bit(tmp_path: Path, kind: str, architecture: str) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path), "mrpc", normalize=kind, architecture=architecture)
    found = Moments(32)
    found.update(torch.randn(200, 32))
    model.normalizer.fit(found)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "run")
    batch = tokenizer(["good film"], ["bad"], return_tensors="pt")
    for again in (load(tmp_path / "run")[0], AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")):
        for name, buffer in model.normalizer.named_buffers():
            stored = again.normalizer.get_buffer(name)
            assert torch.equal(stored, buffer)
            assert stored.dtype == buffer.dtype
        torch.testing.assert_close(again(**batch).logits, model.eval()(**batch).logits, atol=1e-6, rtol=1e-6)


def test_every_embedding_of_a_bi_encoder_is_normalised_before_the_cosine(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"architecture": "bi_encoder", "output": "cosine", "dropout": 0.0}
    plain, tokenizer = built(tiny_model_dir(tmp_path), "stsb", **settings)
    model, _ = built(tmp_path, "stsb", normalize="whiten", normalize_components=4, **settings)
    batch = tokenizer(
        ["good film", "no", "a dog"], ["bad", "it was a story", "one cat eats"], padding=True, return_tensors="pt"
    )
    raw = torch.cat(plain.embed(**batch))
    found = Moments(32)
    found.update(raw)
    model.normalizer.fit(found)
    for ours, theirs in zip(model.embed(**batch), model.normalizer(raw).chunk(2), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    u, v = model.embed(**batch)
    cosine = nn.functional.cosine_similarity(u, v)
    assert u.shape == (3, 4)
    torch.testing.assert_close(model(**batch).logits.squeeze(1), 5 * cosine, atol=1e-5, rtol=1e-5)


def test_it_has_no_parameter_and_refuses_to_work_before_it_is_fitted() -> None:
    normalizer = EmbeddingNormalizer("whiten", SIZE)
    assert not list(normalizer.parameters())
    with pytest.raises(ValueError, match=r"EmbeddingNormalization\('whiten'\)"):
        normalizer(embeddings())
    with pytest.raises(ValueError, match="at least two different ones"):
        normalizer.fit(moments(embeddings()[:1].repeat(5, 1)))
    with pytest.raises(ValueError, match="only a fitted affine"):
        EmbeddingNormalizer("l2", SIZE).fold_into_linear(nn.Linear(SIZE, 2))


@pytest.mark.parametrize(
    ("kind", "components", "nearest"),
    [("whiten", SIZE + 1, SIZE), ("whiten", 0, 1), ("all_but_the_top", SIZE, SIZE - 1), ("all_but_the_top", -2, 1)],
)
def test_components_out_of_range_are_refused_with_the_nearest(kind: str, components: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=f"nearest valid value is {nearest}$"):
        EmbeddingNormalizer(kind, SIZE, components)
