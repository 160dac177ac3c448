"""Two runs with the same seed are equal bit for bit, and evaluating more often does not change what is learned."""

import logging

from nlptrain.config.schema import Config
from nlptrain.verify import states
from nlptrain.verify.check import Check
from nlptrain.verify.children import Job, run
from nlptrain.verify.small import small

logger = logging.getLogger(__name__)


def checks(config: Config) -> list[Check]:
    """Train twice, and once more with an evaluation after every step."""
    with small(config, selects=False) as case:
        first, one = case.variant("one")
        second, two = case.variant("two")
        for path in (first, second):
            run(Job(str(path)).words)
        found = states.checks(one, two)
        if _follows_evaluations(config):
            logger.info("the learning rate follows the evaluations, so that more of them do change what is learned")
            return found
        third, often = case.variant("often", eval_strategy="steps", eval_steps=1)
        run(Job(str(third)).words)
        return found + states.checks(one, often, " with evaluations at every step", states.LEARNED)


def _follows_evaluations(config: Config) -> bool:
    plateau = config.schedule is not None and config.schedule.name == "plateau"
    return plateau or config.training.get("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy")
