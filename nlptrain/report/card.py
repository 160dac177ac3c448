"""The model card: what the Hub and a reader of the model folder need to know, scores with n and interval included."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from nlptrain.metrics.registry import spec
from nlptrain.report.asked import section as asked
from nlptrain.report.blocks import Table
from nlptrain.report.facts import RunFacts
from nlptrain.report.markdown import table
from nlptrain.report.safe_text import markdown as escaped
from nlptrain.report.safe_text import visible
from nlptrain.report.scores import answer, interval, section

LIBRARY = "transformers"
# tells a card of ours, which may be replaced, from one that somebody wrote
MARK = "generated_by: nlptrain report"
PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "token_classification": "token-classification",
}


def card(facts: RunFacts) -> str:
    """A README.md in the form of the Hub: YAML metadata with ``model-index`` between dashes, then Markdown."""
    return f"---\n{_metadata(facts)}\n---\n\n{_body(facts)}"


def _metadata(facts: RunFacts) -> str:
    result = facts.result
    key, value = MARK.split(": ")
    mark: dict[str, Any] = {key: value}
    scored = [name for row in result.metrics.values() for name, score in row.items() if score is not None]
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=PIPELINES[result.kind],
        tags=["nlptrain", result.kind.replace("_", "-")],
        metrics=list(dict.fromkeys(scored)) or None,
        base_model=_base(facts),
        model_name=visible(f"{result.task}-{result.seed}"),
        eval_results=_results(facts) or None,
        **mark,
    )
    return data.to_yaml().strip()


def _results(facts: RunFacts) -> list[EvalResult]:
    """One for each score that is defined; n and the interval are its arguments, and stand in its name."""
    return [
        EvalResult(
            task_type=PIPELINES[facts.result.kind],
            dataset_type=visible(facts.result.task),
            dataset_name=visible(facts.result.task),
            dataset_split=split,
            metric_type=name,
            metric_value=value,
            metric_name=_named(facts, split, name),
            metric_args=_arguments(facts, split, name),
        )
        for split, row in facts.result.metrics.items()
        for name, value in row.items()
        if value is not None
    ]


def _named(facts: RunFacts, split: str, name: str) -> str:
    ends = interval(facts, split, name)
    between = f", 95 % interval {ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
    return f"{name} (n = {facts.result.rows[split]}{between})"


def _arguments(facts: RunFacts, split: str, name: str) -> dict[str, Any]:
    ends = interval(facts, split, name)
    found: dict[str, Any] = {"n": facts.result.rows[split], "greater_is_better": spec(name).greater_is_better}
    return found | ({"level": 0.95, "low": ends[0], "high": ends[1]} if ends else {})


def _base(facts: RunFacts) -> str | None:
    """The id of the encoder on the Hub; none for a folder or a package, which nobody else has."""
    name = facts.config.model.name
    on_hub = (
        name is not None and name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()
    )
    return name if on_hub else None


def _body(facts: RunFacts) -> str:
    result = facts.result
    scores = [table(block) for block in section(facts).blocks if isinstance(block, Table)]
    choices = [table(block) for block in asked(facts).blocks if isinstance(block, Table)]
    use = "text-classification" if result.kind != "token_classification" else "token-classification"
    labels = f"Labels: {', '.join(map(escaped, facts.classes))}." if facts.classes else _range(facts)
    parts = [
        f"# {escaped(result.task)}",
        escaped(answer(facts)),
        labels,
        "## Use",
        "```python\nfrom transformers import pipeline\n\n"
        + (
            ""
            if facts.config.model.architecture == "stock"
            else "import nlptrain  # teaches the Auto classes this model\n\n"
        )
        + f'pipeline("{use}", model="<this folder>")\n```',
        *(_cleaned(facts)),
        "## Scores",
        *scores,
        "## Training",
        *choices,
        "## Limits",
        "The scores are of these rows alone: texts of another kind, time or language may be judged far worse.",
        *(f"Collapsed on {escaped(split)}: {escaped(reason)}." for split, reason in result.collapsed.items()),
        *(f"{escaped(note)}." for note in result.notes),
    ]
    return "\n\n".join(parts) + "\n"


def _range(facts: RunFacts) -> str:
    ends = facts.config.spec.label_range
    return (
        f"Scores lie between {ends[0]:g} and {ends[1]:g}." if ends else "Scores are in the unit of the training data."
    )


def _cleaned(facts: RunFacts) -> list[str]:
    steps = facts.config.data.clean
    call = "`nlptrain.data.cleaning.clean(text, model.config.text_cleaning)`"
    return [f"Texts were cleaned ({', '.join(steps)}); so must be those it is asked about: {call}."] if steps else []
