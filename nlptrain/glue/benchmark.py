"""The benchmark's own facts: official metrics, sizes of the splits, and the files of a submission.

Source: Wang et al. 2019, GLUE (ICLR, arXiv 1804.07461), and the data sets of gluebenchmark.com.
"""

from dataclasses import dataclass, replace
from statistics import mean

from nlptrain.tasks import TASKS, TaskSpec


@dataclass(frozen=True)
class GlueTask:
    """One of the nine tasks.

    Attributes:
        title: as the benchmark writes it.
        measures: our split and metric of each official score; a task's score is their mean.
        validation: our split to the rows of the benchmark's, which are called dev there.
    """

    title: str
    measures: tuple[tuple[str, str], ...]
    validation: dict[str, int]


def _task(title: str, metrics: tuple[str, ...], rows: int) -> GlueTask:
    return GlueTask(title, tuple(("validation", metric) for metric in metrics), {"validation": rows})


GLUE: dict[str, GlueTask] = {
    "cola": _task("CoLA", ("matthews_correlation",), 1043),
    "sst2": _task("SST-2", ("accuracy",), 872),
    "mrpc": _task("MRPC", ("f1", "accuracy"), 408),
    "stsb": _task("STS-B", ("pearson", "spearman"), 1500),
    "qqp": _task("QQP", ("f1", "accuracy"), 40_430),
    "mnli": GlueTask(
        "MNLI",
        (("validation", "accuracy"), ("validation_mismatched", "accuracy")),
        {"validation": 9815, "validation_mismatched": 9832},
    ),
    "qnli": _task("QNLI", ("accuracy",), 5463),
    "rte": _task("RTE", ("accuracy",), 277),
    "wnli": _task("WNLI", ("accuracy",), 71),
}


def average(scores: dict[str, list[float]]) -> float | None:
    """The benchmark's macro-average: of the tasks, each the mean of its measures; None unless all nine are there."""
    return mean(mean(scores[name]) for name in GLUE) if scores.keys() == GLUE.keys() else None


@dataclass(frozen=True)
class TestFile:
    """One file of a submission.

    Attributes:
        name: as the benchmark expects it.
        owner: the task whose run answers.
        task: whose test rows they are: the owner's, or the diagnostic ones.
        split: ours.
        rows: how many the benchmark expects.
        by_name: whether classes are named; else they are 0 and 1.
    """

    __test__ = False  # no test of pytest's

    name: str
    owner: str
    task: TaskSpec
    split: str
    rows: int
    by_name: bool = False


def _file(name: str, owner: str, rows: int, *, split: str = "test", by_name: bool = False) -> TestFile:
    return TestFile(name, owner, TASKS[owner], split, rows, by_name)


# diagnostic rows, which a model of MNLI answers and which count in no average
AX = replace(TASKS["mnli"], name="ax", hub=("nyu-mll/glue", "ax"), splits={"test": "test"})

FILES: tuple[TestFile, ...] = (
    _file("CoLA.tsv", "cola", 1063),
    _file("SST-2.tsv", "sst2", 1821),
    _file("MRPC.tsv", "mrpc", 1725),
    _file("STS-B.tsv", "stsb", 1379),
    _file("QQP.tsv", "qqp", 390_965),
    _file("MNLI-m.tsv", "mnli", 9796, by_name=True),
    _file("MNLI-mm.tsv", "mnli", 9847, split="test_mismatched", by_name=True),
    _file("QNLI.tsv", "qnli", 5463, by_name=True),
    _file("RTE.tsv", "rte", 3000, by_name=True),
    _file("WNLI.tsv", "wnli", 146),
    TestFile("AX.tsv", "mnli", AX, "test", 1104, by_name=True),
)
