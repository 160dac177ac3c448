"""How long the run took, stage by stage, and how fast it read."""

from nlptrain.report.bars import bars
from nlptrain.report.blocks import Block, Cell, Section, Table
from nlptrain.report.facts import RunFacts


def section(facts: RunFacts) -> Section:
    """Seconds of the stages; texts and tokens a second of training; the padding among the tokens."""
    training, seconds = facts.result.training, facts.result.seconds
    blocks: list[Block] = []
    if seconds:
        rows: list[list[Cell]] = [[stage, f"{value:.1f}"] for stage, value in seconds.items()]
        table = Table("Seconds of each stage", ["stage", "seconds"], [*rows, ["all", f"{sum(seconds.values()):.1f}"]])
        blocks.append(bars("Time of each stage", "seconds", list(seconds), list(seconds.values()), [], table))
    speed: list[list[Cell]] = []
    if "texts_per_second" in training:
        speed.append(["rows a second", f"{training['texts_per_second']:,.0f}"])
    if (tokens := tokens_per_second(facts)) is not None:
        speed.append(["tokens a second, without padding", f"{tokens:,.0f}"])
    padding = training.get("padding_share")
    if padding is not None:
        speed.append(["padding among the tokens of a batch", f"{padding:.1%}"])
    speed += [[name, str(training[key])] for name, key in (("steps", "steps"), ("epochs", "epochs")) if key in training]
    if speed:
        blocks.append(Table("Training", ["what", "value"], speed))
    return Section("Time", blocks, [] if padding is not None else ["the record does not say how much was padding"])


def tokens_per_second(facts: RunFacts) -> float | None:
    """Tokens of the training texts over the seconds of training; None where either is not recorded."""
    tokens = facts.result.data.get("tokens", {}).get("train", {}).get("tokens")
    texts, rows = facts.result.training.get("texts_per_second"), facts.result.rows.get("train")
    return tokens / rows * texts if tokens and texts and rows else None
