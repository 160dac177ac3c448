"""What needs no fine-tuning, on the same rows: a constant, a linear model of words, a linear model on the encoder.

The penalty of ``tfidf`` is fixed, because it is to cost seconds; that of ``frozen`` is chosen on the training rows
alone, by 5-fold cross-validation (classification; fixed where a class has fewer rows) or by leaving one out
(regression). ``frozen`` sees at most `FITTED_ROWS` training rows, always the same, so that it stays a small part of a
run. Nothing else is random.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import DataCollatorWithPadding

from nlptrain.config.schema import Config, ModelConfig
from nlptrain.data.encode import TOKEN_COLUMNS, encode, length_limit
from nlptrain.data.load import Splits
from nlptrain.fast.encoder import speed_up
from nlptrain.models.build import build
from nlptrain.models.target import TargetScale
from nlptrain.outputs import OUTPUTS
from nlptrain.predictions import Predictions, objects
from nlptrain.scoring import score_split
from nlptrain.trainer import longest_first
from nlptrain.training_arguments import has_bf16

Array = NDArray[Any]
Predict = Callable[[Any], Array]
BATCH = 64
FITTED_ROWS = 20_000
FOLDS = 5
# what a class that is in no training row gets
_NEVER = np.log(1e-12)


def scores(config: Config, splits: Splits) -> dict[str, dict[str, dict[str, float | None]]]:
    """Name of each of the configuration's baselines to split to metric to value.

    Args:
        config: with a model name.
        splits: labelled training rows, and the rows to be scored.
    """
    names = splits.labels.names if splits.labels else None
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, answers in outputs(config, splits, config.baselines):
        for split, answer in answers.items():
            rows = splits.rows[split]
            labels, kept = OUTPUTS[config.spec.kind].kept(answer, rows["label"][:], names or ())
            predictions = Predictions(np.asarray(rows["line"][:]), (), labels, kept)
            values = score_split(config.spec, predictions, names, resamples=0).values
            found.setdefault(name, {})[split] = values
    return found


def outputs(config: Config, splits: Splits, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Name of each baseline and, per labelled split besides train, what it answers.

    Args:
        config: with a model name; the encoder of ``frozen`` is loaded as it was published.
        splits: labelled training rows, and the rows to be scored.
        names: of `nlptrain.config.report.Baseline`.

    Yields:
        A name and log probabilities (n, classes), or scores (n, 1), by split; of a token classification log
        probabilities (words, classes) of each row. ``frozen`` of a pair regression also
        yields ``cosine``, the cosine of the two embeddings itself.
    """
    classes = len(splits.labels.names) if splits.labels else None
    array = objects if config.spec.facts.by_token else np.asarray
    labels = {s: array(rows["label"][:]) for s, rows in splits.rows.items() if "label" in rows.column_names}
    makers: dict[str, Callable[[], Iterator[tuple[str, dict[str, Any], Predict]]]] = {
        "constant": lambda: _constant(labels, classes),
        "tfidf": lambda: _words(config, splits, labels, classes),
        "frozen": lambda: _frozen(config, splits, labels, classes),
    }
    for maker in (makers[name] for name in makers if name in names):
        for name, features, predict in maker():
            yield name, {split: predict(features[split]) for split in labels if split != "train"}


def _constant(labels: dict[str, Array], classes: int | None) -> Iterator[tuple[str, dict[str, Any], Predict]]:
    if classes is None:
        found = np.array([labels["train"].mean()])
    else:
        # one row more of each class: none is impossible
        counts = np.bincount(_flat(labels["train"]), minlength=classes) + 1
        found = np.log(counts / counts.sum())
    yield "constant", labels, lambda rows: _repeated(found, rows)


def _flat(labels: Array) -> Array:
    """The classes of all rows, or of all words of all rows."""
    return np.concatenate(list(labels)) if labels.dtype == object else labels


def _repeated(found: Array, rows: Array) -> Any:
    """`found` for each row, or for each word of each row."""
    by_word = rows.dtype == object
    return [np.tile(found, (len(row), 1)) for row in rows] if by_word else np.tile(found, (len(rows), 1))


def _words(
    config: Config, splits: Splits, labels: dict[str, Array], classes: int | None
) -> Iterator[tuple[str, dict[str, Any], Predict]]:
    columns = config.spec.text
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    words.fit([text for column in columns for text in splits.rows["train"][column][:]])
    features = {}
    for split in labels:
        parts = [words.transform(splits.rows[split][column][:]) for column in columns]
        features[split] = parts[0] if len(parts) == 1 else _pair(*parts)
    model = Ridge(alpha=1.0) if classes is None else LogisticRegression(C=10.0, max_iter=1000)
    yield "tfidf", features, _fitted(model, features["train"], labels["train"], classes)


def _pair(a: Any, b: Any) -> Any:
    """|a - b|, a * b and the cosine, of rows of length 1."""
    product = a.multiply(b)
    return sparse.hstack([abs(a - b), product, sparse.csr_matrix(product.sum(axis=1))]).tocsr()


def _frozen(
    config: Config, splits: Splits, labels: dict[str, Array], classes: int | None
) -> Iterator[tuple[str, dict[str, Any], Predict]]:
    chosen = fitted_rows(len(labels["train"]))
    features = embeddings(config, splits, chosen)
    x, y = features["train"], labels["train"][chosen]
    if classes is None and config.spec.is_pair:
        # on a line that brings it into the unit of the scores
        line = LinearRegression().fit(x[:, -1:], y)
        yield "cosine", features, lambda rows: line.predict(rows[:, -1:])[:, None]
    model = RidgeCV(np.logspace(-1, 5, 13)) if classes is None else _logistic(y)
    yield "frozen", features, _fitted(make_pipeline(StandardScaler(), model), x, y, classes)


def _logistic(y: Array) -> Any:
    """With the penalty chosen by 5-fold cross-validation where each fold can have a row of each class."""
    if np.unique(y, return_counts=True)[1].min() < FOLDS:
        return LogisticRegression(C=0.1, max_iter=2000)
    return LogisticRegressionCV(
        Cs=7, cv=FOLDS, max_iter=2000, scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False
    )


def _fitted(model: Any, x: Any, y: Array, classes: int | None) -> Predict:
    model.fit(x, y)
    if classes is None:
        return lambda rows: model.predict(rows)[:, None]

    def predict(rows: Any) -> Array:
        found = np.full((rows.shape[0], classes), _NEVER)
        found[:, model.classes_] = np.maximum(model.predict_log_proba(rows), _NEVER)
        return found

    return predict


def fitted_rows(count: int) -> NDArray[np.int64]:
    """Which of `count` training rows ``frozen`` is fitted on, rising."""
    if count <= FITTED_ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, FITTED_ROWS, replace=False))


def embeddings(config: Config, splits: Splits, train: NDArray[np.int64]) -> dict[str, Array]:
    """Mean-pooled states of the encoder as it was published, (n, d) by labelled split, bfloat16 where that is fast.

    A pair is [u, v, |u - v|, u * v, cosine]; its last column is the cosine.

    Args:
        config: with a model name.
        splits: labelled rows.
        train: the training rows that are wanted.
    """
    task = config.spec
    architecture: Literal["bi_encoder", "cross_encoder"] = "bi_encoder" if task.is_pair else "cross_encoder"
    settings = ModelConfig(architecture=architecture, pooling="mean")
    names = splits.labels.names if splits.labels else None
    target = None if names else TargetScale.fit(splits.rows["train"]["label"][:], task.label_range)
    model, tokenizer = build(config.model.name, settings, task, names, target)
    model.eval()
    speed_up(model)
    limit = length_limit(tokenizer, model.config, config.data.max_length)
    found = {}
    for split, texts in splits.rows.items():
        if "label" in texts.column_names:
            wanted = texts.select(train) if split == "train" else texts
            encoded, order = longest_first(encode(wanted, task, tokenizer, limit, clean=config.data.clean))
            x = np.concatenate([_embed(model, batch) for batch in _batches(encoded, tokenizer)])
            found[split] = x[np.argsort(order)]
    return found


def _batches(encoded: Any, tokenizer: Any) -> Iterator[dict[str, torch.Tensor]]:
    collate = DataCollatorWithPadding(tokenizer)
    plain = encoded.select_columns([name for name in TOKEN_COLUMNS if name in encoded.column_names])
    for start in range(0, len(plain), BATCH):
        yield collate([plain[i] for i in range(start, min(start + BATCH, len(plain)))])


@torch.no_grad()
def _embed(model: Any, batch: dict[str, torch.Tensor]) -> Array:
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(cpu=True)):
        parts = model.embed(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
    if len(parts) == 2:
        u, v = parts
        parts = (u, v, (u - v).abs(), u * v, torch.cosine_similarity(u, v)[:, None])
    return torch.cat(parts, dim=1).double().numpy()
