"""Several processes refine as one does, whatever the number of rows of each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from nlptrain.errors import ProcessError, ResourceError
from nlptrain.refine import Head, matrices, posterior, refine
from nlptrain.refine.fit import OPERATIONS, over, prepare

ROWS, FEATURES, CLASSES = 203, 5, 3
CASES: list[dict[str, Any]] = [
    {"loss": "cross_entropy", "proximal": False, "method": "newton", "l2": 0.01},
    {"loss": "cross_entropy", "proximal": True, "method": "auto", "l2": "auto"},
    {"loss": "cross_entropy", "proximal": False, "method": "bfgs-armijo", "l2": 0.01},
    {"loss": "mse", "proximal": False, "method": "ridge", "l2": "auto"},
]


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)) * 3 + 1
    return x, rng.integers(0, CLASSES, ROWS), x @ rng.normal(size=FEATURES) + rng.normal(size=ROWS)


def fitted(part: slice) -> list[dict[str, Any]]:
    x, ids, scores = rows()
    found = []
    for case in CASES:
        head = Head(FEATURES, CLASSES if case["loss"] == "cross_entropy" else 1)
        y = (ids if case["loss"] == "cross_entropy" else scores)[part]
        done = refine(x[part], y, head, np.linspace(-1, 1, head.size), **case)
        sure = posterior(done, x[part], y)
        report = {"parameters": done.parameters.tolist(), "covariance": sure.covariance.tolist()}
        found.append({**report, **done.certificate.as_dict(), "left_out": sure.left_out(x[part], y).loss.tolist()})
    return found


def share(rank: int, world: int) -> slice:
    """Unequal parts, in the case of four processes one of them empty."""
    edges = {1: [0, ROWS], 2: [0, 101, ROWS], 4: [0, 70, 70, 150, ROWS]}[world]
    return slice(edges[rank], edges[rank + 1])


def worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found: dict[str, Any] = {"fits": fitted(share(rank, world))}
    x, ids, _ = rows()
    head, part = Head(FEATURES, CLASSES), share(rank, world)
    for name, y in (("wrong", ids + (rank == world - 1) * 9), ("full", ids)):
        try:
            refine(x[part], y[part], head, np.zeros(head.size), loss="cross_entropy", proximal=False, method="newton")
        except (ValueError, ResourceError, ProcessError) as error:
            found[name] = [type(error).__name__, str(error)]
        matrices.available = lambda: 10
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, 4])
def test_processes_end_with_the_same_bits_and_the_result_of_one(world: int, tmp_path: Path) -> None:
    multiprocessing.spawn(worker, (world, str(tmp_path)), nprocs=world)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)]
    for number, one in enumerate(fitted(slice(0, ROWS))):
        several = [rank["fits"][number] for rank in found]
        left_out = np.concatenate([fit.pop("left_out") for fit in several])
        assert all(fit == several[0] for fit in several)
        assert several[0]["rows"] == ROWS
        np.testing.assert_allclose(several[0]["parameters"], one["parameters"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(left_out, one["left_out"], rtol=0, atol=1e-9)
        assert several[0]["l2"] == one["l2"]
    # no process waits for another that has given up
    assert [rank["wrong"][0] for rank in found] == ["ProcessError"] * (world - 1) + ["ValueError"]
    assert found[-1]["wrong"][1].endswith("found 9 to 11")
    assert [rank["full"][0] for rank in found] == ["ResourceError"] + ["ProcessError"] * (world - 1)
    assert all("newton needs" in rank["full"][1] for rank in found)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", ["loss", "gradient", "hessian", "gauss_newton", "product"])
def test_sums_over_parts_are_the_sum_over_all(loss: str, name: str) -> None:
    x, ids, scores = rows()
    head = Head(FEATURES, CLASSES if loss == "cross_entropy" else 1, 2, "tanh")
    before = np.linspace(-1, 1, head.size)
    whole = prepare(x, ids if loss == "cross_entropy" else scores, head, before, loss=loss, proximal=False)
    at = whole.space.enter(before)
    at = np.concatenate([at, at]) if name == "product" else at
    for world in (2, 4):
        total = 0.0
        for rank in range(world):
            part = share(rank, world)
            data = type(whole.data)(whole.data.x[part], whole.data.targets[part], whole.data.head, whole.data.loss)
            total = total + over(data)(name, at)
        np.testing.assert_allclose(total, over(whole.data)(name, at), rtol=1e-10, atol=1e-10)
    assert name in OPERATIONS
