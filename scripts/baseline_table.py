"""What needs no fine-tuning, on the same rows: the majority class, and a linear model on frozen embeddings.

    python scripts/baseline_table.py configs/sst2.yaml configs/stsb.yaml

Embeddings are the mean-pooled states of the configuration's encoder as it was published; a pair is [u, v, |u-v|, u*v].
Classification: logistic regression with the L2 penalty chosen by 5-fold cross-validation on the training rows.
Regression: the training mean, the cosine itself, and ridge with the penalty chosen by leave-one-out. Nothing is random.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import DataCollatorWithPadding

from nlptrain.config.load import load
from nlptrain.config.schema import Config
from nlptrain.data.encode import encode
from nlptrain.data.load import load_splits
from nlptrain.metrics.scores import score
from nlptrain.models.build import build
from nlptrain.models.target import TargetScale
from nlptrain.trainer import longest_first

SHOWN = ("accuracy", "f1", "matthews_correlation", "pearson", "spearman", "nmse")
Arrays = dict[str, tuple[NDArray[Any], NDArray[Any]]]


def main() -> None:
    """Parse the words, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path)
    print("| run | baseline | split | n | metric | value |\n|---|---|---|---|---|---|")
    for path in parser.parse_args().configs:
        print("\n".join(rows(path)))


def rows(path: Path) -> Iterator[str]:
    """Lines of the table for one configuration."""
    config = load(path)
    data = features(config)
    for name, predict in baselines(config, data):
        for split, (x, y) in data.items():
            if split != "train":
                values = score(config.spec.metrics, predict(x), y).values
                for metric in (m for m in SHOWN if m in values):
                    shown = "undefined" if values[metric] is None else f"{values[metric]:.4f}"
                    yield f"| {path.stem} | {name} | {split} | {len(y)} | {metric} | {shown} |"


def features(config: Config) -> Arrays:
    """Per labelled split the embeddings (n, d), of a pair with its cosine as last column, and the labels (n,)."""
    task = config.spec
    splits = load_splits(task, config.data, seed=int(config.training.get("seed", 42)))
    architecture = "bi_encoder" if task.is_pair else "cross_encoder"
    settings = config.model.model_copy(update={"architecture": architecture, "output": "linear", "pooling": "mean"})
    names = splits.labels.names if splits.labels else None
    target = None if names else TargetScale.fit(splits.rows["train"]["label"][:], task.label_range)
    model, tokenizer = build(config.model.name, settings, task, names, target)
    model.eval()
    found = {}
    for split, texts in splits.rows.items():
        if "label" in texts.column_names:
            data = config.data
            encoded, order = longest_first(encode(texts, task, tokenizer, data.max_length, clean=data.clean))
            x = np.concatenate([embed(model, batch) for batch in batches(encoded, tokenizer)])
            found[split] = (x[np.argsort(order)], np.asarray(texts["label"][:]))
    return found


def batches(encoded: Any, tokenizer: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Padded batches of 64."""
    collate = DataCollatorWithPadding(tokenizer)
    columns = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded.column_names]
    plain = encoded.select_columns(columns)
    for start in range(0, len(plain), 64):
        yield collate([plain[i] for i in range(start, min(start + 64, len(plain)))])


@torch.no_grad()
def embed(model: Any, batch: dict[str, torch.Tensor]) -> NDArray[np.float64]:
    """Features of one batch."""
    parts = model.embed(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
    if len(parts) == 2:
        u, v = parts
        parts = (u, v, (u - v).abs(), u * v, torch.cosine_similarity(u, v)[:, None])
    return torch.cat(parts, dim=1).double().numpy()


def baselines(config: Config, data: Arrays) -> Iterator[tuple[str, Any]]:
    """Name and prediction function of each baseline."""
    x, y = data["train"]
    if config.spec.kind == "classification":
        most = np.bincount(y).argmax()
        yield "majority class", lambda rows: np.full(len(rows), most)
        fit = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=7, cv=5, max_iter=2000, scoring="neg_log_loss"))
        yield "logistic regression on frozen embeddings", fit.fit(x, y).predict
    else:
        yield "mean", lambda rows: np.full(len(rows), y.mean())
        yield "cosine of frozen embeddings", lambda rows: rows[:, -1]
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
        yield "ridge on frozen embeddings", ridge.fit(x, y).predict


if __name__ == "__main__":
    main()
