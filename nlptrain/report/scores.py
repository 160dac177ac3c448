"""The answer: the primary score in one line, and all scores with their intervals beside the baselines."""

from nlptrain.metrics.registry import METRICS, PROBABILITY_METRICS, MetricSpec
from nlptrain.report.blocks import TO, Block, Cell, Section, Table
from nlptrain.report.facts import RunFacts
from nlptrain.score_lines import shown


def answer(facts: RunFacts) -> str:
    """What the run has reached, in one line."""
    split, name, result = facts.split, facts.config.spec.primary, facts.result
    if split is None:
        return "Nothing was scored: no rows but the training rows are labelled."
    rows = f"{result.rows.get(split, 0):,} {split} rows"
    if split in result.collapsed:
        return f"The model collapsed on the {rows}: {result.collapsed[split]}."
    value = result.metrics[split].get(name)
    if value is None:
        reason = result.undefined.get(split, {}).get(name, "it was not computed")
        return f"{name} on {rows} is undefined: {reason}. That counts as worst."
    return f"{name} {value:.4f} on {rows}{_between(facts, split, name)}{_beside(facts, split, value)}."


def section(facts: RunFacts) -> Section:
    """All scores of all splits."""
    result = facts.result
    blocks: list[Block] = [_table(facts, split) for split in result.metrics]
    blocks += [f"Collapsed on {split}: {reason}." for split, reason in result.collapsed.items()]
    blocks += [
        f"{name} on {split} is undefined: {reason}."
        for split, reasons in result.undefined.items()
        for name, reason in reasons.items()
    ]
    if blocks:
        blocks.append(_explained(facts))
    missing = [] if result.baselines else ["the record holds no baselines"]
    missing += [] if any(result.intervals.values()) else ["the record holds no intervals"]
    return Section("Scores", blocks, missing)


def best_baseline(facts: RunFacts, split: str, metric: MetricSpec) -> tuple[str, float] | None:
    """Name and value of the best of what needs no fine-tuning; None where there is none."""
    rows = ((name, found.get(split, {}).get(metric.name)) for name, found in facts.result.baselines.items())
    values = {name: value for name, value in rows if value is not None}
    if not values:
        return None
    name = (max if metric.greater_is_better else min)(values, key=lambda one: values[one])
    return name, values[name]


def interval(facts: RunFacts, split: str, name: str) -> tuple[float, float] | None:
    """Both ends of the 95 % interval."""
    ends = facts.result.intervals.get(split, {}).get(name)
    return None if ends is None or ends.low is None or ends.high is None else (ends.low, ends.high)


def _between(facts: RunFacts, split: str, name: str) -> str:
    ends = interval(facts, split, name)
    return f" (95 % interval {ends[0]:.4f} to {ends[1]:.4f})" if ends else ""


def _beside(facts: RunFacts, split: str, value: float) -> str:
    best = best_baseline(facts, split, facts.primary)
    if best is None:
        return ""
    ends = interval(facts, split, facts.primary.name)
    inside = ends is not None and ends[0] <= best[1] <= ends[1]
    worse = (value > best[1]) == facts.primary.greater_is_better
    verdict = "within that interval" if inside else "the same" if value == best[1] else "worse" if worse else "better"
    return f"; the best that needs no fine-tuning, {best[0]}, reaches {best[1]:.4f}, which is {verdict}"


def _table(facts: RunFacts, split: str) -> Table:
    result = facts.result
    others = [name for name, found in result.baselines.items() if split in found]
    rows: list[list[Cell]] = []
    for name, value in result.metrics[split].items():
        ends = interval(facts, split, name)
        between = f"{ends[0]:.4f}{TO}{ends[1]:.4f}" if ends else "none"
        beside = [shown(result.baselines[other][split].get(name)) for other in others]
        rows.append([name, shown(value), between, *beside])
    chose = ", which also chose the checkpoint" if split == "validation" and result.best_step is not None else ""
    caption = f"{split}: {result.rows.get(split, 0):,} rows{chose}"
    return Table(caption, ["metric", "score", "95 % interval", *others], rows)


def _explained(facts: RunFacts) -> Table:
    known = METRICS | PROBABILITY_METRICS
    names = dict.fromkeys(name for row in facts.result.metrics.values() for name in row if name in known)
    rows = [[name, known[name].description, _direction(known[name])] for name in names]
    return Table("What the metrics are", ["metric", "meaning", "better"], rows, wide=True, folded=True)


def _direction(metric: MetricSpec) -> str:
    return "higher" if metric.greater_is_better else "lower"
