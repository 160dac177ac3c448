"""Token dropout hides about the share of words it was asked to, never a frame or padding, and only in training."""

from pathlib import Path

import pytest
import torch

from nlptrain.config.schema import ModelConfig
from nlptrain.errors import ModelError
from nlptrain.models.build import build
from nlptrain.models.tokens import drop_tokens
from nlptrain.tasks import TaskSpec
from tests.tiny import tiny_model_dir

TASK = TaskSpec("tiny", "classification", ("text",), labels=("negative", "positive"))


def test_about_the_share_is_hidden_and_the_frame_never() -> None:
    ids = torch.randint(10, 1000, (200, 50))
    ids[:, 0], ids[:, -1] = 2, 0
    found = drop_tokens(ids, 0.1, mask=7, keep={0, 2})
    assert torch.equal(found[:, [0, -1]], ids[:, [0, -1]])
    hidden = found != ids
    assert (found[hidden] == 7).all()
    # four standard errors of a binomial share
    assert hidden[:, 1:-1].float().mean().item() == pytest.approx(0.1, abs=4 * (0.09 / 9600) ** 0.5)


def test_probability_zero_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    drop_tokens(torch.ones(4, 4, dtype=torch.long), 0.0, mask=7, keep={0})
    assert torch.equal(torch.get_rng_state(), before)


def test_only_training_hides_tokens(tmp_path: Path) -> None:
    folder = str(tiny_model_dir(tmp_path, dropout=0.0))
    settings = ModelConfig(dropout=0.0, token_dropout=0.5)
    model, tokenizer = build(folder, settings, TASK, TASK.labels, None)
    batch = tokenizer(["a good film", "the bad story of a dog"], padding=True, return_tensors="pt")
    first, second = (model.eval()(**batch).logits for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(model.train()(**batch).logits, first)


def test_it_needs_a_mask_token(tmp_path: Path) -> None:
    folder = tiny_model_dir(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.is_file():
            path.write_text(path.read_text().replace('"[MASK]"', "null"))
    with pytest.raises(ModelError, match="mask token"):
        build(str(folder), ModelConfig(token_dropout=0.1), TASK, TASK.labels, None)
