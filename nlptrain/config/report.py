"""Configuration of what is said about a run."""

from typing import Literal

from pydantic import Field

from nlptrain.config.section import Section

Baseline = Literal["constant", "tfidf", "frozen"]


class ReportConfig(Section):
    """What is computed beside the scores; none of it changes the model."""

    bootstrap: int = Field(default=2000, ge=0, le=1_000_000)
    """Resamples of the 95 % intervals; 0: no intervals."""
    baselines: list[Baseline] | None = None
    """What needs no fine-tuning, scored on the same rows: constant (majority class, mean or majority tag); tfidf (a
    linear model of words, of at most 100,000 rows of train, seconds); frozen (a linear model on the encoder as it was
    published, a pass over the rows, of train at most 20,000); left out: all three, without frozen where a model is
    trained from scratch, and of a token classification constant, for which there is no other."""
