"""Pooling, heads, loss and configuration against numpy, torch and closed forms."""

from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity

from nlptrain.models.configuration import NlpTrainConfig
from nlptrain.models.heads import CosineHead, LinearHead, pair_features
from nlptrain.models.loss import Loss, usual
from nlptrain.models.pooling import POOLINGS

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
REFERENCE = {"cls": lambda x: x[0], "mean": lambda x: x.mean(0), "max": lambda x: x.max(0)}


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_equals_numpy_on_the_real_tokens_alone(name: str) -> None:
    states = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    poisoned = states.masked_fill(MASK.unsqueeze(-1) == 0, 1e6)
    expected = [REFERENCE[name](x[m.astype(bool)]) for x, m in zip(states.numpy(), MASK.numpy(), strict=True)]
    np.testing.assert_allclose(POOLINGS[name](poisoned, MASK).numpy(), np.stack(expected), atol=1e-6)


def test_pair_features_are_u_v_distance_and_product() -> None:
    u, v = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 5.0]])
    assert pair_features(u, v).tolist() == [[1, -2, 3, 5, 2, 7, 3, -10]]


def test_linear_head_starts_with_std_002_and_zero_bias() -> None:
    head = LinearHead(hidden_size=384, texts=2, outputs=8, dropout=0.0)
    assert head.linear.weight.shape == (8, 1536)
    assert head.linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not head.linear.bias.any()


def test_cosine_head_maps_cosine_0_to_low_and_1_to_high() -> None:
    head = CosineHead()
    head.span(-1.5, 2.0)
    u, v = torch.randn(6, 4), torch.randn(6, 4)
    expected = -1.5 + 3.5 * np.diag(cosine_similarity(u, v))
    np.testing.assert_allclose(head(u, v).detach().squeeze(-1).numpy(), expected, atol=1e-6)


def test_classification_loss_is_scikit_learns_log_loss() -> None:
    logits, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 2, 1, 0, 0])
    expected = log_loss(labels.numpy(), logits.double().softmax(-1).numpy(), labels=[0, 1, 2])
    assert usual(None).rows(logits, labels).mean().item() == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_mixes_the_target_with_the_uniform_distribution() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    target = 0.8 * torch.eye(4)[labels] + 0.2 / 4
    expected = -(target * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(Loss("cross_entropy", label_smoothing=0.2).rows(logits, labels), expected)


def test_regression_loss_is_the_mse_of_standardised_scores() -> None:
    logits, labels = torch.randn(9, 1) + 2, torch.randn(9) + 2
    expected = mean_squared_error((labels.numpy() - 2) / 1.5, (logits.squeeze(-1).numpy() - 2) / 1.5)
    assert usual(1.5).rows(logits, labels).mean().item() == pytest.approx(expected, rel=1e-5)


def test_loss_is_float32_also_for_bfloat16_logits() -> None:
    logits, labels = torch.randn(6, 2).bfloat16(), torch.tensor([0, 1, 0, 1, 1, 0])
    with torch.autocast("cpu", torch.bfloat16):
        loss = usual(None).rows(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, usual(None).rows(logits.float(), labels))


def test_loss_refuses_scores_of_another_shape_than_labels() -> None:
    with pytest.raises(ValueError, match="label per row"):
        usual(1.0).rows(torch.zeros(4, 1), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="scores of shape"):
        usual(1.0).rows(torch.zeros(4, 2), torch.zeros(4))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"pooling": "sum"}, "pooling"),
        ({"architecture": "stock"}, "architecture"),
        ({"head_dropout": 1.0}, "head_dropout"),
        ({"problem_type": "regression", "num_labels": 1, "target_scale": 0.0}, "target_scale"),
        ({"target_mean": 2.0}, "regression"),
        ({"output": "cosine", "problem_type": "regression", "num_labels": 1}, "bi_encoder"),
        ({"architecture": "bi_encoder"}, "separator_token_id"),
        ({"problem_type": "regression", "num_labels": 2}, "num_labels 2"),
    ],
)
def test_configuration_refuses_and_names_a_wrong_value(values: dict[str, Any], named: str) -> None:
    with pytest.raises(StrictDataclassError, match=named):
        NlpTrainConfig(**values)
