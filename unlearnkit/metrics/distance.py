"""Distances between paired sets of pictures, by their features: KID, CMMD, diversity, each with a jackknife interval.

Picture i of both sets has the same prompt and noise, so x_i and y_i are not independent. Every figure is therefore the
mean of a kernel over pairs of pictures from *different prompts* (a U-statistic of the pairs). It is unbiased, 0 for
two equal sets, and fit for a jackknife that leaves out one prompt at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .stats import Interval, jackknife

__all__ = ["cmmd", "diversity", "fid", "kid"]

Floats = NDArray[np.float64]
ROWS = 512


def kid(x: Floats, y: Floats, prompts: Sequence[Hashable]) -> Interval:
    """KID (Binkowski et al. 2018, arXiv:1801.01401): squared MMD with (x.y / d + 1)^3, of features x, y (n, d)."""

    def kernel(a: Floats, b: Floats) -> Floats:
        return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)

    return _mmd(kernel, x, y, prompts)


def cmmd(x: Floats, y: Floats, prompts: Sequence[Hashable]) -> Interval:
    """CMMD (Jayasumana et al. 2024, arXiv:2401.09603): 1000 x squared MMD, Gaussian of width 10, unit vectors."""

    def kernel(a: Floats, b: Floats) -> Floats:
        return np.asarray(1000 * np.exp(-(1 - a @ b.T) / 100))  # |a - b|^2 / (2 * 10^2), a and b of length 1

    return _mmd(kernel, _unit(x), _unit(y), prompts)


def fid(x: Floats, y: Floats) -> float:
    """FID (Heusel et al. 2017, arXiv:1706.08500): squared Fréchet distance of two normal laws fitted to x, y (n, d).

    Biased upwards by the number of pictures, so it has no interval and means nothing without n, network and reference.
    """
    means, spreads = (x.mean(0), y.mean(0)), [np.atleast_2d(np.cov(one.T)) for one in (x, y)]
    # the trace of the root of S T is the sum of the roots of its eigenvalues, which are real and not negative
    roots = np.sqrt(np.maximum(np.linalg.eigvals(spreads[0] @ spreads[1]).real, 0)).sum()
    between_means = ((means[0] - means[1]) ** 2).sum()
    return float(between_means + np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * roots)


def diversity(x: Floats, y: Floats, prompts: Sequence[Hashable]) -> tuple[Interval, Interval, Interval]:
    """How unlike pictures of different prompts are: mean cosine distance in x, in y, and y's less x's."""
    x, y = _unit(x), _unit(y)
    return (
        _pair_mean(lambda i: 1 - x[i] @ x.T, len(x), prompts),
        _pair_mean(lambda i: 1 - y[i] @ y.T, len(x), prompts),
        _pair_mean(lambda i: x[i] @ x.T - y[i] @ y.T, len(x), prompts),
    )


def _mmd(
    kernel: Callable[[Floats, Floats], Floats], x: Floats, y: Floats, prompts: Sequence[Hashable]
) -> Interval:
    return _pair_mean(
        lambda i: kernel(x[i], x) + kernel(y[i], y) - kernel(x[i], y) - kernel(y[i], x), len(x), prompts
    )


def _pair_mean(rows: Callable[[slice], Floats], n: int, prompts: Sequence[Hashable]) -> Interval:
    """The mean over pairs from different prompts of the symmetric matrix that ``rows`` gives by rows."""
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    place = np.array([number[prompt] for prompt in prompts])
    sums = np.zeros((len(number), len(number)))
    for start in range(0, n, ROWS):
        part = slice(start, start + ROWS)
        columns = np.stack([np.bincount(place, row, len(number)) for row in rows(part)])
        np.add.at(sums, place[part], columns)
    sizes = np.bincount(place, minlength=len(number)).astype(np.float64)
    pairs = np.outer(sizes, sizes)
    np.fill_diagonal(sums, 0)
    np.fill_diagonal(pairs, 0)
    if len(number) < 3:
        value = float(sums.sum() / pairs.sum()) if len(number) == 2 else float("nan")
        return Interval(value, -np.inf, np.inf)
    without = (sums.sum() - 2 * sums.sum(0)) / (pairs.sum() - 2 * pairs.sum(0))
    return jackknife(float(sums.sum() / pairs.sum()), without)


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
