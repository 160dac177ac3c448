"""Scores as lines for a person."""

from collections.abc import Iterator, Mapping
from typing import Any


def shown(value: float | None, digits: int = 4) -> str:
    """A number, "undefined" where there is none."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def score_lines(
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Mapping[str, Any]],
    baselines: Mapping[str, Mapping[str, float | None]],
) -> Iterator[str]:
    """One line for each metric of a split: value, 95 % interval, and what each baseline reaches.

    Args:
        metrics: name to value.
        intervals: name to ``low`` and ``high``; may lack metrics.
        baselines: name to its metrics.
    """
    for name, value in metrics.items():
        ends = intervals.get(name, {})
        between = f"[{ends['low']:.4f}, {ends['high']:.4f}]" if ends.get("low") is not None else ""
        others = "  ".join(f"{base} {shown(row[name])}" for base, row in baselines.items() if name in row)
        yield f"  {name:<21} {shown(value):<10} {between:<18} {others}".rstrip()


def cost_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What a faster backend changed, see `nlptrain.fast.int8.cost`; nothing of torch itself.

    Args:
        result: of `nlptrain.evaluate`: ``backend``, and ``cost`` where there is one.
    """
    cost = result.get("cost", {})
    if "labels_changed" in cost:
        changed, most = cost["labels_changed"], cost["largest_probability_difference"]
        yield f"{result['backend']} beside torch: {changed:.2%} of labels differ, probabilities by at most {most:.2g}"
    elif cost:
        most, mean = cost["largest_difference"], cost["mean_difference"]
        yield f"{result['backend']} beside torch: scores differ by at most {most:.2g}, {mean:.2g} on average"


def refinement_lines(record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    """What became of the head, see `nlptrain.refinement`.

    Args:
        record: of the refinement.
        metrics: split to metric to value, of the model as it is now.
    """
    for when in ("before", "after"):
        if fit := record[when]:
            facts = fit["certificate"]
            yield (
                f"{fit['head']}, {when} fine-tuning: {facts['solver']} on {facts['rows']} rows, l2 {facts['l2']:.3g} "
                f"({facts['l2_by']}), objective {facts['objective_before']:.6g} -> {facts['objective_after']:.6g}, "
                f"gradient {facts['gradient_inf']:.1e}, {facts['iterations']} iterations"
            )
            if "decision" in fit:
                yield f"  {'accepted' if fit['decision']['accepted'] else 'rejected'}: {fit['decision']['why']}"
    if found := record["calibration"]:
        change = f"nll {found['nll_before']:.4f} -> {found['nll_after']:.4f}"
        yield f"temperature {found['temperature']:.4f} on {found['rows']} rows: {found['why'] or change}"
    for split, before in record.get("fine_tuned", {}).items():
        yield f"{split}: as fine-tuned -> as it is now"
        for name, value in before.items():
            yield f"  {name:<21} {shown(value):<10} -> {shown(metrics[split][name])}"
