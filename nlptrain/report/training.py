"""How training went: losses and the selecting metric, the learning rate, and the norm of the gradient with clipping."""

from nlptrain.report.axes import number
from nlptrain.report.blocks import Block, Section
from nlptrain.report.curves import Series, lines
from nlptrain.report.facts import RunFacts

STEP = "optimizer step"
# gradients that differ by more than this are shown on a logarithmic axis
WIDE = 20.0


def learning(facts: RunFacts) -> Section:
    """Loss of training and validation, and the metric that selects checkpoints."""
    blocks: list[Block] = []
    losses = [
        Series("training", facts.curve("loss")),
        Series("validation", facts.curve("eval_loss"), dots=True),
    ]
    if any(one.points for one in losses):
        note = "The training loss is the mean since the logged step before, with dropout."
        blocks.append(lines("Loss", (STEP, "loss"), losses).saying(note))
    name = facts.primary.name
    if scores := facts.curve(f"eval_{name}"):
        blocks.append(lines(f"Validation {name}", (STEP, name), [Series(name, scores, dots=True)]))
    if facts.result.best_step is not None:
        blocks.append(f"The checkpoint of step {facts.result.best_step} was chosen by {name} and is what is scored.")
    elif blocks:
        blocks.append("The last step is what is scored; no checkpoint was chosen.")
    return Section("Learning curves", blocks, _missing(facts, blocks, "losses"))


def learning_rate(facts: RunFacts) -> Section:
    """The rate of the logged steps."""
    rates = facts.curve("learning_rate")
    blocks: list[Block] = (
        [lines("Rate of the logged steps", (STEP, "learning rate"), [Series("rate", rates)])] if rates else []
    )
    return Section("Learning rate", blocks, _missing(facts, blocks, "learning rates"))


def gradients(facts: RunFacts) -> Section:
    """The norm before clipping, and how much was clipped."""
    by_part = facts.config.clipping
    norms = facts.curve("grad_norm_before_clipping") or facts.curve("grad_norm")
    blocks: list[Block] = []
    if norms:
        values = [value for _, value in norms]
        logarithmic = min(values) > 0 and max(values) > WIDE * min(values)
        limit = float(facts.config.training.get("max_grad_norm") or 0) if by_part is None else 0.0
        marks = [("limit", limit)] if limit and limit <= 2 * max(values) else []
        labels = (STEP, "gradient norm")
        series = [Series("norm", norms)]
        chart = lines("Norm before clipping", labels, series, logarithmic=(False, logarithmic), marks=marks)
        blocks.append(chart.saying(_limit(values, limit) if by_part is None else f"Clipping by {by_part.by}."))
    if shares := facts.curve("clipped_share"):
        mean = sum(share for _, share in shares) / len(shares)
        chart = lines("Clipped share since the logged step before", (STEP, "share clipped"), [Series("share", shares)])
        blocks.append(chart.saying(f"{mean:.1%} in the mean over the logged steps."))
    return Section("Gradient norm", blocks, _missing(facts, blocks, "gradient norms"))


def _limit(values: list[float], limit: float) -> str:
    if not limit:
        return "Gradients were not clipped."
    above = sum(value > limit for value in values)
    return (
        f"Gradients were clipped at a norm of {number(limit)}: {above} of {len(values)} logged steps "
        f"({above / len(values):.1%}) were above it."
    )


def _missing(facts: RunFacts, blocks: list[Block], what: str) -> list[str]:
    if "history" in facts.missing:
        return [facts.missing["history"]]
    return [] if blocks else [f"the history holds no {what}"]
