"""Published figures, each with the split and the protocol it was measured by; figures of others are not ours to mix.

Only what a publication states: a figure that it leaves out is None.
"""

from dataclasses import dataclass

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class Reference:
    """The figures of one model.

    Attributes:
        model: its name.
        split: validation (dev), or test, whose labels only the benchmark's server has.
        protocol: how the figures came about.
        source: the publication.
        values: task to its official measures, times 100, in the order of `nlptrain.glue.benchmark.GLUE`.
        average: over all nine tasks, as published, times 100; None where the publication has none of all nine.
    """

    model: str
    split: str
    protocol: str
    source: str
    values: dict[str, Values]
    average: float | None = None

    @property
    def name(self) -> str:
        """Heads its column."""
        return f"{self.model}, {self.split}"


_MINILM = "Wang et al. 2020, MiniLM (arXiv 2002.10957), table 2"
_MINILM_PROTOCOL = "fine-tuned on each task alone, mean of 4 runs; accuracy also of MRPC and QQP, CoLA by Matthews"
_GLUE = "Wang et al. 2019, GLUE (arXiv 1804.07461), table 4"
_BEST_OF_THREE = "best of 3 runs by validation"


def _accuracies(
    mnli: float, sst2: float, qnli: float, cola: float, rte: float, mrpc: float, qqp: float
) -> dict[str, Values]:
    """A row of the MiniLM paper, in its order."""
    single: dict[str, Values] = {"cola": (cola,), "sst2": (sst2,), "qnli": (qnli,), "rte": (rte,)}
    return single | {"mrpc": (None, mrpc), "qqp": (None, qqp), "mnli": (mnli, None)}


REFERENCES: tuple[Reference, ...] = (
    Reference(
        "BERT-base",
        "validation",
        _MINILM_PROTOCOL,
        _MINILM,
        _accuracies(84.5, 93.2, 91.7, 58.9, 68.6, 87.3, 91.3),
    ),
    Reference(
        "MiniLM 6x768",
        "validation",
        _MINILM_PROTOCOL,
        _MINILM,
        _accuracies(84.0, 92.0, 91.0, 49.2, 71.5, 88.4, 91.0),
    ),
    Reference(
        "MiniLM 12x384",
        "validation",
        "fine-tuned on each task alone; accuracy also of MRPC and QQP, CoLA by Matthews",
        "model card of microsoft/MiniLM-L12-H384-uncased",
        _accuracies(85.7, 93.0, 91.5, 58.5, 73.3, 89.5, 91.3),
    ),
    Reference(
        "BERT-base",
        "test",
        "fine-tuned on each task alone for 3 epochs at batch size 32, the best of 4 learning rates by validation; "
        "without WNLI",
        "Devlin et al. 2019, BERT (arXiv 1810.04805), table 1",
        {
            "cola": (52.1,),
            "sst2": (93.5,),
            "mrpc": (88.9, None),
            "stsb": (None, 85.8),
            "qqp": (71.2, None),
            "mnli": (84.6, 83.4),
            "qnli": (90.5,),
            "rte": (66.4,),
        },
    ),
    Reference(
        "BiLSTM+Attn+ELMo",
        "test",
        f"trained on all tasks together, {_BEST_OF_THREE}",
        _GLUE,
        {
            "cola": (33.6,),
            "sst2": (90.4,),
            "mrpc": (84.4, 78.0),
            "stsb": (74.2, 72.3),
            "qqp": (63.1, 84.3),
            "mnli": (74.1, 74.5),
            "qnli": (79.8,),
            "rte": (58.9,),
            "wnli": (65.1,),
        },
        average=70.0,
    ),
    Reference(
        "CBoW",
        "test",
        f"mean of GloVe vectors, frozen, and a classifier for each task, {_BEST_OF_THREE}",
        _GLUE,
        {
            "cola": (0.0,),
            "sst2": (80.0,),
            "mrpc": (81.5, 73.4),
            "stsb": (61.2, 58.7),
            "qqp": (51.4, 79.1),
            "mnli": (56.0, 56.4),
            "qnli": (72.1,),
            "rte": (54.1,),
            "wnli": (65.1,),
        },
        average=58.9,
    ),
)
