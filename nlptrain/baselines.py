"""What needs no fine-tuning, on the same rows: a constant, a linear model of words, a linear model on the encoder.

The penalty of ``tfidf`` is fixed, because it is to cost seconds; that of ``frozen`` is chosen on the training rows
alone, by 5-fold cross-validation (classification; fixed where a class has fewer rows) or by leaving one out
(regression). Both are fitted on at most so many training rows, always the same, that they stay a small part of a run;
nothing else is random. Rows are scored some thousands at a time, in memory that does not grow with them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import DataCollatorWithPadding

from nlptrain import forward
from nlptrain.config.schema import Config, ModelConfig
from nlptrain.data.batches import token_batches
from nlptrain.data.encode import TOKEN_COLUMNS, encode, length_limit
from nlptrain.data.load import Splits
from nlptrain.fast import speed_up, weights_at_rest
from nlptrain.models.build import build
from nlptrain.models.target import TargetScale
from nlptrain.outputs import OUTPUTS
from nlptrain.predictions import Predictions, objects
from nlptrain.scoring import score_split
from nlptrain.training_arguments import has_bf16

Array = NDArray[Any]
Predict = Callable[[Any], Array]
CHUNK = 8192
FROZEN_ROWS = 20_000
WORDS_ROWS = 100_000
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
    makers = {"constant": _constant, "tfidf": _words, "frozen": _frozen}
    scored = {s: rows for s, rows in splits.rows.items() if s != "train" and "label" in rows.column_names}
    for maker in (makers[name] for name in makers if name in names):
        made = maker(config, splits, classes)
        answers = {split: made.answers(rows) for split, rows in scored.items()}
        for name in made.predict:
            yield name, {split: found[name] for split, found in answers.items()}


@dataclass(frozen=True)
class _Made:
    """Baselines that look at the same features.

    Attributes:
        features: of labelled rows, as many as fit into memory.
        predict: name to what gives the answers for features.
    """

    features: Callable[[Dataset], Any]
    predict: dict[str, Predict]

    def answers(self, rows: Dataset) -> dict[str, Any]:
        """Name to the answers for all rows, chunk by chunk."""
        chunks = (rows.select(range(at, min(at + CHUNK, len(rows)))) for at in range(0, len(rows), CHUNK))
        found = [{name: predict(x) for name, predict in self.predict.items()} for x in map(self.features, chunks)]
        return {name: _joined([part[name] for part in found]) for name in self.predict}


def _joined(parts: list[Any]) -> Any:
    return list(chain.from_iterable(parts)) if isinstance(parts[0], list) else np.concatenate(parts)


def fitted_rows(rows: Dataset, most: int) -> Dataset:
    """The training rows that are looked at: `most` of them, in their order, or all."""
    if len(rows) <= most:
        return rows
    return rows.select(np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False)))


def _constant(config: Config, splits: Splits, classes: int | None) -> _Made:
    def labels(rows: Dataset) -> Array:
        return (objects if config.spec.facts.by_token else np.asarray)(rows["label"][:])

    train = labels(splits.rows["train"])
    if classes is None:
        found = np.array([train.mean()])
    else:
        # one row more of each class: none is impossible
        counts = np.bincount(_flat(train), minlength=classes) + 1
        found = np.log(counts / counts.sum())
    return _Made(labels, {"constant": lambda rows: _repeated(found, rows)})


def _flat(labels: Array) -> Array:
    """The classes of all rows, or of all words of all rows."""
    return np.concatenate(list(labels)) if labels.dtype == object else labels


def _repeated(found: Array, rows: Array) -> Any:
    """`found` for each row, or for each word of each row."""
    by_word = rows.dtype == object
    return [np.tile(found, (len(row), 1)) for row in rows] if by_word else np.tile(found, (len(rows), 1))


def _words(config: Config, splits: Splits, classes: int | None) -> _Made:
    columns, train = config.spec.text, fitted_rows(splits.rows["train"], WORDS_ROWS)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    words.fit([text for column in columns for text in train[column][:]])

    def features(rows: Dataset) -> Any:
        parts = [words.transform(rows[column][:]) for column in columns]
        return parts[0] if len(parts) == 1 else _pair(*parts)

    model = Ridge(alpha=1.0) if classes is None else LogisticRegression(C=10.0, max_iter=1000)
    return _Made(features, {"tfidf": _fitted(model, features(train), train["label"][:], classes)})


def _pair(a: Any, b: Any) -> Any:
    """|a - b|, a * b and the cosine, of rows of length 1."""
    product = a.multiply(b)
    return sparse.hstack([abs(a - b), product, sparse.csr_matrix(product.sum(axis=1))]).tocsr()


def _frozen(config: Config, splits: Splits, classes: int | None) -> _Made:
    train, features = fitted_rows(splits.rows["train"], FROZEN_ROWS), embeddings(config, splits)
    x, y = features(train), np.asarray(train["label"][:])
    predict = {}
    if classes is None and config.spec.is_pair:
        # on a line that brings it into the unit of the scores
        line = LinearRegression().fit(x[:, -1:], y)
        predict["cosine"] = lambda rows: line.predict(rows[:, -1:])[:, None]
    model = RidgeCV(np.logspace(-1, 5, 13)) if classes is None else _logistic(y)
    return _Made(features, predict | {"frozen": _fitted(make_pipeline(StandardScaler(), model), x, y, classes)})


def _logistic(y: Array) -> Any:
    """With the penalty chosen by 5-fold cross-validation where each fold can have a row of each class."""
    if np.unique(y, return_counts=True)[1].min() < FOLDS:
        return LogisticRegression(C=0.1, max_iter=2000)
    return LogisticRegressionCV(
        Cs=np.logspace(-4, 0, 5),
        cv=FOLDS,
        max_iter=2000,
        tol=1e-3,
        scoring="neg_log_loss",
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )


def _fitted(model: Any, x: Any, y: Any, classes: int | None) -> Predict:
    model.fit(x, y)
    if classes is None:
        return lambda rows: model.predict(rows)[:, None]

    def predict(rows: Any) -> Array:
        found = np.full((rows.shape[0], classes), _NEVER)
        found[:, model.classes_] = np.maximum(model.predict_log_proba(rows), _NEVER)
        return found

    return predict


def embeddings(config: Config, splits: Splits) -> Callable[[Dataset], Array]:
    """Mean-pooled states of the encoder as it was published, in bfloat16 where that is fast.

    Args:
        config: with a model name.
        splits: labelled training rows.

    Returns:
        From rows to their states (n, d); of a pair [u, v, |u - v|, u * v, cosine], whose last column is the cosine.
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
    collate = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=2)

    def embedded(rows: Dataset) -> Array:
        encoded = encode(rows, task, tokenizer, limit, clean=config.data.clean)
        batches = token_batches(encoded["length"][:], forward.BUDGET)
        encoded = encoded.select_columns([name for name in TOKEN_COLUMNS if name in encoded.column_names])
        with weights_at_rest():
            found = [_embed(model, collate(encoded.__getitems__(places.tolist()))) for places in batches]
        return np.concatenate(found)[np.argsort(np.concatenate(batches))]

    return embedded


@torch.no_grad()
def _embed(model: Any, batch: Mapping[str, torch.Tensor]) -> Array:
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(cpu=True)):
        parts = model.embed(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
    if len(parts) == 2:
        u, v = parts
        parts = (u, v, (u - v).abs(), u * v, torch.cosine_similarity(u, v)[:, None])
    return torch.cat(parts, dim=1).double().numpy()
