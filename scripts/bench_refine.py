"""Time `nlptrain.refine` against scikit-learn's newton-cholesky on one problem, to the same gradient.

    python scripts/bench_refine.py --rows 67000 --features 384 --repeats 3

Synthetic features with the spectrum of a sentence encoder's, labels drawn from a logistic model. The two
alternate in one process and share its threads. Both times are from raw features to fitted coefficients; ours includes
the certificate. On a machine with other work set OMP_NUM_THREADS=1, or the threads of each product of matrices wait for
one another.
"""

import argparse
import time
from statistics import median

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from nlptrain.refine import Head, refine

Array = NDArray[np.float64]


def main() -> None:
    """Parse the words, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=67_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--l2", type=float, default=1e-3)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    x, y = problem(words.rows, words.features, words.classes)
    ours, theirs = [], []
    # the first pair only warms up
    for repeat in range(words.repeats + 1):
        seconds, gradient = own(x, y, words.classes, words.l2)
        reference, reached = scikit_learn(x, y, words.classes, words.l2)
        print(f"repeat {repeat}: {seconds:.2f} s to {gradient:.1e}, scikit-learn {reference:.2f} s to {reached:.1e}")
        if repeat:
            ours.append(seconds)
            theirs.append(reference)
    print(
        "\n| rows | features | classes | ours, s | scikit-learn, s | ratio | repeats |\n|---|---|---|---|---|---|---|"
    )
    print(
        f"| {words.rows} | {words.features} | {words.classes} | {median(ours):.2f} | {median(theirs):.2f} | "
        f"{median(ours) / median(theirs):.2f} | {words.repeats} |"
    )


def problem(rows: int, features: int, classes: int) -> tuple[Array, NDArray[np.int64]]:
    """Features whose variances fall over three decades, mixed by a rotation."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(features, features)))
    x = rng.normal(size=(rows, features)) * np.logspace(0, -1.5, features) @ rotation
    logits = x @ rng.normal(size=(features, classes))
    return x, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def own(x: Array, y: NDArray[np.int64], classes: int, l2: float) -> tuple[float, float]:
    """Seconds, and the largest entry of the gradient that was reached."""
    head = Head(x.shape[1], classes)
    start = time.perf_counter()
    found = refine(
        x, y, head, np.zeros(head.size), loss="cross_entropy", proximal=False, method="newton", l2=l2, tolerance=1e-8
    )
    return time.perf_counter() - start, found.certificate.gradient_inf


def scikit_learn(x: Array, y: NDArray[np.int64], classes: int, l2: float) -> tuple[float, float]:
    """As `own`, with the gradient in the same parameters: for two classes, 1/sqrt(2) of that of its own."""
    c = 1 / (len(x) * l2) * (2 if classes == 2 else 1)
    start = time.perf_counter()
    scaler = StandardScaler().fit(x)
    z = scaler.transform(x)
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-8).fit(z, y)
    seconds = time.perf_counter() - start
    p = model.predict_proba(z)
    p[np.arange(len(y)), y] -= 1
    penalty = l2 * (np.vstack([-model.coef_, model.coef_]) / 2 if classes == 2 else model.coef_)
    gradient = np.hstack([p.T @ z / len(y) + penalty, p.mean(axis=0)[:, None]])
    return seconds, float(np.abs(gradient).max() * (np.sqrt(2) if classes == 2 else 1))


if __name__ == "__main__":
    main()
