"""From a YAML file and ``key=value`` words to a checked `Config`.

Precedence: defaults < file < command line. Every problem is reported at once, with its key, its line and the nearest
valid name, before anything heavy is imported.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, NodeEvent

from nlptrain.config import arguments
from nlptrain.config.schema import Config
from nlptrain.errors import ConfigError

MAX_BYTES = 1_000_000
Path_ = tuple[str | int, ...]
# what the YAML library lets through for a key that is a list or mapping, an impossible date, a bottomless nesting
_UNREADABLE = (TypeError, ValueError, RecursionError)


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and check a configuration.

    Raises:
        ConfigError: every problem found, each with file, line, key, value and remedy.
    """
    tree = parse(path)
    document = plain(tree)
    given = [override(word) for word in overrides]
    for keys, value in given:
        assign(document, keys, value)
    sources = {keys: "command line" for keys, _ in given}
    return check(document, lambda keys: sources.get(_known(keys, sources), f"{path}:{line(tree, keys)}"))


def check(document: dict[str, Any], where: Any = lambda keys: "configuration") -> Config:
    """Turn a plain document into a `Config`, or raise one `ConfigError` with every problem."""
    problems: list[str] = []
    config: Config | None = None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        problems += [describe(item, where) for item in error.errors() if not _is_other_form(item)]
    training = document.get("training")
    problems += _training_problems(training if isinstance(training, dict) else {}, where)
    if problems or config is None:
        raise ConfigError("CONFIG", problems)
    return config


def _is_other_form(item: Any) -> bool:
    """Whether pydantic only says that a section, whose own problems it tells, is not the name that would also do."""
    return bool(item["loc"][-1:] == ("str",) and isinstance(item["input"], dict))


def dump(config: Config) -> str:
    """The configuration as YAML text that `load` reads back to an equal one."""
    text = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 4096
    yaml.dump(config.model_dump(mode="json"), text)
    return text.getvalue()


def parse(path: Path) -> CommentedMap:
    """The YAML mapping at `path`, with its line numbers; ConfigError where it is not plain YAML."""
    text = _text(path)
    yaml = YAML(typ="rt")
    try:
        if at := _line_of_more_than_plain(yaml, text):
            raise ConfigError("CONFIG", f"{path}:{at}: tags, anchors and aliases are not used here; write it out")
        tree = yaml.load(text)
    except MarkedYAMLError as error:
        at = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError("CONFIG", f"{path}:{at}: not valid YAML: {error.problem}") from None
    except (YAMLError, *_UNREADABLE) as error:
        raise ConfigError("CONFIG", f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, CommentedMap):
        raise ConfigError("CONFIG", f"{path}: expected keys such as `task:`, found {type(plain(tree)).__name__}")
    return tree


def _line_of_more_than_plain(yaml: YAML, text: str) -> int | None:
    """The first line with a tag, an anchor or an alias: found by the parser, before anything is built from them."""
    for event in yaml.parse(StringIO(text)):
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and (event.anchor or _tagged(event))):
            return int(event.start_mark.line) + 1
    return None


def _tagged(event: NodeEvent) -> bool:
    tag = getattr(event, "ctag", None)
    return tag is not None and tag.handle is not None


def _text(path: Path) -> str:
    if not path.is_file():
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError("CONFIG", f"{path}: no such configuration file{hint}")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError("CONFIG", f"{path}: a configuration is at most {MAX_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("CONFIG", f"{path}: expected UTF-8, found byte {error.start} undecodable") from None


def plain(node: Any) -> Any:
    """A tree of `parse` as dicts, lists and scalars."""
    if isinstance(node, CommentedMap):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [plain(value) for value in node]
    scalars: tuple[type, ...] = (bool, int, float, str)
    kind = next((kind for kind in scalars if isinstance(node, kind)), None)
    if kind is None:
        return None if node is None else str(node)
    return kind(node)


def override(word: str) -> tuple[Path_, Any]:
    """Keys and value of a ``key=value`` word."""
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError("USAGE", f"expected key=value, found {word!r}; e.g. training.learning_rate=3e-5")
    yaml = YAML(typ="rt")
    try:
        if _line_of_more_than_plain(yaml, text):
            raise ConfigError("USAGE", f"{word!r}: tags, anchors and aliases are not used here; write it out")
        value = plain(yaml.load(text)) if text else None
    except (YAMLError, *_UNREADABLE):
        raise ConfigError("USAGE", f"{word!r}: the value is not valid YAML; quote it") from None
    return tuple(key.split(".")), value


def assign(document: dict[str, Any], keys: Path_, value: Any) -> None:
    """Set the value of nested keys."""
    for depth, key in enumerate(keys[:-1], start=1):
        if document.get(str(key)) is None:
            document[str(key)] = {}
        document = document[str(key)]
        if not isinstance(document, dict):
            raise ConfigError("USAGE", f"{'.'.join(map(str, keys))}: {'.'.join(map(str, keys[:depth]))} has no keys")
    document[str(keys[-1])] = value


def _known(keys: Path_, sources: dict[Path_, str]) -> Path_:
    return next((keys[:size] for size in range(len(keys), 0, -1) if keys[:size] in sources), keys)


def line(tree: Any, keys: Path_) -> int:
    """The line of `keys` in a tree of `parse`, or of the nearest key above."""
    found = 1
    for key in keys:
        if isinstance(tree, CommentedMap) and key in tree:
            found = int(tree.lc.key(key)[0]) + 1
        elif isinstance(tree, CommentedSeq) and isinstance(key, int) and key < len(tree):
            found = int(tree.lc.item(key)[0]) + 1
        else:
            break
        tree = tree[key]
    return found


def describe(item: Any, where: Any, root: type[BaseModel] = Config) -> str:
    """One sentence for an error of pydantic in a `root`."""
    # a section with rules of its own is named by its validators
    named = (key for key in item["loc"] if not str(key).startswith("function-after["))
    keys = tuple(key for key in named if key not in ("str", "TaskConfig"))
    name = ".".join(map(str, keys)) or "configuration"
    if item["type"] == "extra_forbidden":
        return f"{where(keys)}: unknown key {name!r}{_nearest(str(keys[-1]), _siblings(keys[:-1], root))}"
    if item["type"] == "missing":
        return f"{where(keys[:-1])}: missing key {name!r}"
    message = item["msg"].removeprefix("Value error, ")
    found = "" if isinstance(item["input"], dict) else f", found {item['input']!r}"
    if item["type"] == "literal_error" and (near := get_close_matches(str(item["input"]), _options(item), n=1)):
        found += f"; did you mean {near[0]!r}?"
    return f"{where(keys)}: {name}: {message[0].lower()}{message[1:]}{found}"


def _options(item: Any) -> list[str]:
    """The names among the values that a key may have."""
    return re.findall(r"'([^']*)'", item["ctx"]["expected"])


def _training_problems(training: dict[str, Any], where: Any) -> Iterable[str]:
    known = arguments.training_fields()
    for key, value in training.items():
        if key not in known:
            yield f"{where(('training', key))}: unknown key 'training.{key}'{_nearest(key, known)}"
        elif found := arguments.problem(key, value):
            yield f"{where(('training', key))}: training.{key}: {found}" + (
                "" if key == "hub_token" else f", found {value!r}"
            )


def _siblings(keys: Path_, section: type[BaseModel]) -> list[str]:
    for key in keys:
        field = section.model_fields.get(str(key))
        options = [field.annotation, *get_args(field.annotation)] if field else []
        section = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), section)
    return list(section.model_fields)


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; one of {', '.join(known)}" if len(known) < 20 else ""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, with every training field by its name."""
    schema = Config.model_json_schema()
    fields = {name: {"description": text} for name, text in arguments.training_fields().items()}
    schema["properties"]["training"] |= {"properties": fields, "additionalProperties": False}
    return schema
