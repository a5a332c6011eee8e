"""The statistics of an evaluation. The unit is the prompt: pictures of one prompt are not independent.

Rates have Wilson intervals, paired differences Tango's score interval and an exact test, independent ones Newcombe's
interval, means a cluster bootstrap, distances between sets of pictures a cluster jackknife. Several concepts are
corrected with Holm's method. Retention is tested for non-inferiority, with a margin that was set before. Shares are in
[0, 1] throughout.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Difference",
    "Interval",
    "Rate",
    "cluster_bootstrap",
    "difference",
    "holm",
    "jackknife",
    "mcnemar",
    "needed",
    "newcombe",
    "non_inferior",
    "power",
    "rate",
    "tango",
    "wilson",
]

Floats = NDArray[np.float64]
LEVEL = 0.95
FEWEST = 8  # prompts for a bootstrap
LARGE = 2000  # pairs, from which power is near 1 for any loss of interest


@dataclass(frozen=True)
class Interval:
    """An estimate between its confidence limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rate(Interval):
    """``k`` of ``n`` pictures, of ``prompts`` prompts."""

    k: int
    n: int
    prompts: int


@dataclass(frozen=True)
class Difference(Interval):
    """How much larger a share is after than before, picture by picture.

    gained, lost: prompts on which it rose and fell; p: exact two-sided probability of so uneven a split by chance.
    """

    gained: int
    lost: int
    n: int
    prompts: int
    p: float


def wilson(k: float, n: float, *, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927; Newcombe 1998a, method 3). k, n may be effective counts."""
    if not 0 <= k <= n or n <= 0:
        raise ValueError(f"{k} of {n} is no share")
    z, p = _z(level), k / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (
        0.0 if k == 0 else max(0.0, (middle - half) / scale),
        1.0 if k == n else min(1.0, (middle + half) / scale),
    )


def needed(limit: float, *, level: float = LEVEL) -> int:
    """The fewest units of which none may show a thing for Wilson's upper bound to be at most ``limit``."""
    z = _z(level)
    return math.ceil(z * z * (1 - limit) / limit - 1e-9)


def rate(outcomes: Sequence[bool], prompts: Sequence[Hashable], *, level: float = LEVEL) -> Rate:
    """The share of true outcomes, with Wilson's interval at the effective number of pictures.

    The effective number is n over the design effect of the prompts (Korn and Graubard 1998, never above n). Where all
    outcomes agree the design effect cannot be estimated, and the number of prompts stands in for it (our choice, the
    cautious one). With one picture a prompt this is Wilson's interval itself.
    """
    x = np.asarray(outcomes, np.float64)
    sums, sizes = _by_prompt(x, prompts)
    k, n = int(x.sum()), len(x)
    effective = n / _design_effect(sums, sizes, float(x.var()))
    low, high = wilson(min(k * effective / n, effective), effective, level=level)
    return Rate(k / n, low, high, k, n, len(sums))


def tango(gained: float, lost: float, n: float, *, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of (gained - lost) / n for n pairs (Tango 1998, eq. 5-7). The counts may be effective ones."""
    z = _z(level)

    def score(delta: float) -> float:
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        spread = n * (2 * q + delta * (1 - delta))
        return (gained - lost - n * delta) / math.sqrt(max(spread, 1e-300))

    middle = (gained - lost) / n
    return _solve(lambda d: score(d) - z, -1.0, middle), _solve(lambda d: score(d) + z, middle, 1.0)


def newcombe(k: float, n: float, k_control: float, n_control: float, *, level: float = LEVEL) -> Interval:
    """The share ``k`` of ``n`` minus that of an independent control, between hybrid score limits.

    Newcombe 1998b, method 10: from Wilson's limits l, u of both, the limits are d - √((p-l)² + (u_c-p_c)²) and
    d + √((u-p)² + (p_c-l_c)²).
    """
    p, c = k / n, k_control / n_control
    (low, high), (low_c, high_c) = wilson(k, n, level=level), wilson(k_control, n_control, level=level)
    below, above = math.hypot(p - low, high_c - c), math.hypot(high - p, c - low_c)
    return Interval(p - c, p - c - below, p - c + above)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test: the discordant pairs are split like a fair coin."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def difference(
    before: Sequence[bool], after: Sequence[bool], prompts: Sequence[Hashable], *, level: float = LEVEL
) -> Difference:
    """After minus before on the same prompts and seeds: Tango's interval at the effective number of pairs, and an
    exact sign test over prompts. With one picture a prompt these are Tango's interval and McNemar's test themselves.
    """
    x = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    sums, sizes = _by_prompt(x, prompts)
    shrink = 1 / _design_effect(sums, sizes, float(x.var()))
    gained, lost = float((x > 0).sum()), float((x < 0).sum())
    low, high = tango(gained * shrink, lost * shrink, len(x) * shrink, level=level)
    rose, fell = int((sums > 0).sum()), int((sums < 0).sum())
    return Difference(float(x.mean()), low, high, rose, fell, len(x), len(sums), mcnemar(rose, fell))


def cluster_bootstrap(
    values: Sequence[float],
    prompts: Sequence[Hashable],
    *,
    level: float = LEVEL,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """The mean of ``values`` with a bootstrap over whole prompts, so that pictures of one prompt stay together.

    Percentile interval, widened for few prompts as Hesterberg (2015, "expanded percentile") does: plain percentiles
    are too narrow by the factor sqrt((m - 1) / m) and by normal instead of t quantiles. Of fewer than 8 prompts there
    is no interval (infinite): simulated (``benchmarks/coverage.py``) it covered the truth in only 92 to 94 % of cases.
    """
    x = np.asarray(values, np.float64)
    sums, sizes = _by_prompt(x, prompts)
    m, mean = len(sums), float(x.mean())
    if m < FEWEST:
        return Interval(mean, -math.inf, math.inf)
    from scipy.stats import t

    weights = _resamples(m, draws, seed)
    means = np.sort((weights @ sums) / (weights @ sizes))
    tail = NormalDist().cdf(math.sqrt(m / (m - 1)) * float(t.ppf((1 - level) / 2, m - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


@functools.lru_cache(maxsize=1)
def _resamples(m: int, draws: int, seed: int) -> Floats:
    """How often each of ``m`` prompts is drawn in each of ``draws`` resamples (draws, m)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(m, np.full(m, 1 / m), size=draws).astype(np.float64)


def jackknife(value: float, without: Floats, *, level: float = LEVEL) -> Interval:
    """``value`` of all prompts with an interval from its values ``without`` each prompt in turn (m,)."""
    from scipy.stats import t

    m = len(without)
    if m < 2:
        return Interval(value, -math.inf, math.inf)
    error = math.sqrt((m - 1) / m * float(((without - without.mean()) ** 2).sum()))
    half = float(t.ppf((1 + level) / 2, m - 1)) * error
    return Interval(value, value - half, value + half)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted probabilities, in the order given."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def non_inferior(change: Interval, margin: float) -> Literal["kept", "lost", "not shown"]:
    """Whether what must stay has stayed: the change is surely above ``-margin``, surely below it, or neither.

    With the two-sided level of 95 % this is a one-sided test at 2.5 %. "No significant difference" is not "kept".
    """
    return "kept" if change.low > -margin else "lost" if change.high < -margin else "not shown"


def power(n: int, margin: float, *, lost: float, gained: float, level: float = LEVEL) -> float:
    """The probability, 0 to 1, that ``non_inferior`` finds n pairs kept, of which these shares really got worse and
    better. The sum over all counts of both that can occur; of more than 2,000 pairs that of 2,000.
    """
    from scipy.stats import multinomial

    n = min(n, LARGE)

    def likely(share: float) -> int:
        return math.ceil(n * share + 6 * math.sqrt(n * share) + 6)

    total, same = 0.0, 1 - lost - gained
    for worse in range(min(n, likely(lost)) + 1):
        for better in range(min(n - worse, likely(gained)) + 1):
            if tango(better, worse, n, level=level)[0] > -margin:
                counts = [worse, better, n - worse - better]
                total += float(multinomial.pmf(counts, n, [lost, gained, same]))
    return min(1.0, total)


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _by_prompt(x: Floats, prompts: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum and number of the values of each prompt (m,), in order of first appearance."""
    if len(x) != len(prompts) or len(x) == 0:
        raise ValueError(f"{len(x)} values of {len(prompts)} prompts: one prompt is needed for each value")
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    place = np.array([number[prompt] for prompt in prompts])
    sums, sizes = np.bincount(place, x, len(number)), np.bincount(place, None, len(number))
    return sums.astype(np.float64), sizes.astype(np.float64)


def _design_effect(sums: Floats, sizes: Floats, variance: float) -> float:
    """How many times as many clustered pictures as independent ones are needed; at least 1."""
    n, m = float(sizes.sum()), len(sums)
    if m == n:
        return 1.0
    if variance == 0 or m < 2:
        return n / m
    residual = sums - sums.sum() / n * sizes
    clustered = m / (m - 1) * float((residual**2).sum()) / n**2
    return max(1.0, clustered / (variance / n))


def _solve(f: Callable[[float], float], low: float, high: float) -> float:
    """The root of a falling function, by halving: f(low) >= 0 >= f(high), or the end where it does not cross."""
    if f(low) < 0:
        return low
    if f(high) > 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return (low + high) / 2
