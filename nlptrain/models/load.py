"""Reading of a trained model, stock or ours, with every weight accounted for."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from nlptrain.errors import ModelError
from nlptrain.models.checkpoint import LOAD_ERRORS, load_tokenizer, quiet, read_config
from nlptrain.models.classes import CLASSES
from nlptrain.models.modeling import NlpTrainModel, refuse_incomplete
from nlptrain.tasks import KINDS, Kind


def load(folder: Path, kind: Kind = "classification") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in evaluation mode, float32, and its tokeniser.

    Args:
        folder: of a trained model.
        kind: of the task it was trained for.

    Raises:
        ModelError: the folder is missing, incomplete or brings code; a weight is missing, unexpected or of another
            shape; the tokeniser does not fit.
    """
    with quiet():
        config = read_config(folder)
        try:
            model, info = CLASSES[kind].auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # so that they are reported with the others
                output_loading_info=True,
            )
        except LOAD_ERRORS as error:
            raise ModelError("MODEL_WEIGHTS", f"{folder}: the weights cannot be read: {error}") from error
        refuse_incomplete(folder, info)
        embeddings = model.get_input_embeddings().num_embeddings
        tokenizer = load_tokenizer(folder, embeddings, by_word=KINDS[kind].by_token)
    if not isinstance(model, NlpTrainModel):
        model.accepts_loss_kwargs = False
    return model, tokenizer


def check_cleaning(model: PreTrainedModel, steps: Sequence[str]) -> None:
    """Check that texts will be cleaned as the model's config.json says it expects; without a word there, not at all.

    Raises:
        ModelError: other steps, or another order.
    """
    expected = list(getattr(model.config, "text_cleaning", None) or [])
    if expected != list(steps):
        raise ModelError(
            "MODEL_CLEANING",
            f"the run has data.clean {list(steps)}, its model expects text_cleaning {expected}; "
            "restore the model folder of this run",
        )


def check_labels(model: PreTrainedModel, labels: tuple[str, ...] | None) -> None:
    """Check that the model's class ids mean what the task means by them; None: the task is a regression.

    Raises:
        ModelError: another number, order or spelling of the labels, or another kind of task.
    """
    is_regression = model.config.problem_type == "regression"
    if labels is None and is_regression:
        return
    expected = "a regression" if labels is None else f"labels {dict(enumerate(labels))}"
    found = "a regression" if is_regression else f"labels {dict(sorted((model.config.id2label or {}).items()))}"
    if expected != found:
        raise ModelError(
            "MODEL_LABELS",
            f"the task has {expected}, the model has {found}; "
            "use the model that was trained on this task, or name the task's labels in the model's order",
        )
