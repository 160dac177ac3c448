"""The page of one run: its parts in their order."""

from nlptrain.report import answers, asked, data_facts, mistakes, refinement, repeat, scores, slices, timing, training
from nlptrain.report.blocks import Page
from nlptrain.report.facts import RunFacts
from nlptrain.report.source_texts import texts


def page(facts: RunFacts) -> Page:
    """Everything that is known about a run."""
    found, why_not = texts(facts, facts.predictions) if facts.predictions is not None else ([], None)
    # of a run without a refinement nothing is missing
    refined = refinement.section(getattr(facts.result, "refinement", None))
    sections = [
        asked.section(facts),
        scores.section(facts),
        training.learning(facts),
        training.learning_rate(facts),
        training.gradients(facts),
        answers.section(facts),
        answers.calibration(facts),
        slices.section(facts, found, why_not),
        mistakes.section(facts, found, why_not),
        data_facts.section(facts),
        *([refined] if refined else []),
        timing.section(facts),
        repeat.section(facts),
    ]
    title = f"{facts.result.task}, seed {facts.result.seed}"
    return Page(title, scores.answer(facts), sections)
