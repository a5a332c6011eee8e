"""The statistics against scipy, against their own definitions, and against worked examples in print."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm

from unlearnkit.metrics import stats
from unlearnkit.metrics.stats import Interval


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe (1998) Statistics in Medicine 17, 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_in_print(k: int, n: int, low: float, high: float) -> None:
    assert stats.wilson(k, n) == pytest.approx((low, high), abs=6e-5)


@given(some.integers(1, 2000).flatmap(lambda n: some.tuples(some.integers(0, n), some.just(n))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    k, n = counts
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert stats.wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_needed_is_the_first_n_that_is_enough() -> None:
    for limit in (0.01, 0.05, 0.1, 0.5):
        n = stats.needed(limit)
        assert stats.wilson(0, n)[1] <= limit < stats.wilson(0, n - 1)[1]


def test_mcnemar_and_tango_in_print() -> None:
    """Airway hyper-responsiveness (Bentur et al. 2009) in Fagerland, Lydersen, Laake (2014): 1 gained, 7 lost of 21."""
    assert stats.tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=6e-4)
    assert stats.mcnemar(1, 7) == pytest.approx(0.0703, abs=6e-5)


def _likelihood_score(gained: int, lost: int, n: int, delta: float) -> float:
    """Tango's statistic from its definition: the nuisance share maximises the likelihood under ``delta``."""

    def loss(q: float) -> float:
        shares = ((gained, q + delta), (lost, q), (n - gained - lost, 1 - 2 * q - delta))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in shares if count)

    best = minimize_scalar(
        loss, bounds=(max(0.0, -delta), (1 - delta) / 2), method="bounded", options={"xatol": 1e-12}
    )
    return (gained - lost - n * delta) / math.sqrt(n * (2 * best.x + delta - delta**2))


@pytest.mark.parametrize(("gained", "lost", "n"), [(1, 7, 21), (3, 40, 60), (12, 2, 50), (5, 5, 100)])
def test_tango_is_the_score_interval(gained: int, lost: int, n: int) -> None:
    low, high = stats.tango(gained, lost, n)
    z = norm.ppf(0.975)
    assert _likelihood_score(gained, lost, n, low) == pytest.approx(z, abs=1e-3)
    assert _likelihood_score(gained, lost, n, high) == pytest.approx(-z, abs=1e-3)


@given(some.integers(1, 300), some.data())
def test_tango_is_antisymmetric_and_holds_the_estimate(n: int, data: some.DataObject) -> None:
    gained = data.draw(some.integers(0, n))
    lost = data.draw(some.integers(0, n - gained))
    low, high = stats.tango(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert stats.tango(lost, gained, n) == pytest.approx((-high, -low), abs=1e-9)


def test_one_picture_a_prompt_is_the_plain_method() -> None:
    seen = [True] * 30 + [False] * 112
    rate = stats.rate(seen, range(142))
    assert (rate.k, rate.n, rate.prompts) == (30, 142, 142)
    assert (rate.low, rate.high) == pytest.approx((0.152, 0.286), abs=6e-4)  # shared/evaluation.md, section 5
    before, after = [True] * 90 + [False] * 10, [False] * 70 + [True] * 25 + [False] * 5
    change = stats.difference(before, after, range(100))
    assert (change.value, change.gained, change.lost) == (-0.65, 5, 70)
    assert (change.low, change.high) == stats.tango(5, 70, 100)
    assert change.p == stats.mcnemar(5, 70)


def test_repeating_every_picture_of_a_prompt_adds_nothing() -> None:
    rng = np.random.default_rng(1)
    seen, after = rng.random(60) < 0.4, rng.random(60) < 0.2
    thrice, prompts = np.repeat(np.arange(60), 3), np.arange(60)
    one, three = stats.rate(seen, prompts), stats.rate(seen[thrice], thrice)
    assert (three.k, three.n, three.prompts) == (3 * one.k, 180, 60)
    assert (three.low, three.high) == pytest.approx((one.low, one.high), abs=3e-3)
    single, triple = (
        stats.difference(seen, after, prompts),
        stats.difference(seen[thrice], after[thrice], thrice),
    )
    assert (triple.low, triple.high) == pytest.approx((single.low, single.high), abs=5e-3)
    assert triple.p == single.p
    values = rng.normal(size=60)
    triple_mean, mean = (
        stats.cluster_bootstrap(values[thrice], thrice),
        stats.cluster_bootstrap(values, prompts),
    )
    assert (triple_mean.low, triple_mean.high) == pytest.approx((mean.low, mean.high))


def test_no_events_count_prompts() -> None:
    nothing = stats.rate([False] * 100, [i // 2 for i in range(100)])
    assert (nothing.low, nothing.high) == stats.wilson(0, 50)


def test_all_of_unequal_prompts_is_a_share() -> None:
    """k n_eff / n of k = n is n_eff, and rounds to a little more in one of a hundred such tables."""
    for prompts in range(2, 40):
        for more in range(prompts):
            sizes = [2] * more + [1] * (prompts - more)
            units = [place for place, size in enumerate(sizes) for _ in range(size)]
            found = stats.rate([True] * len(units), units)
            assert (found.low, found.high) == pytest.approx(stats.wilson(prompts, prompts))


def test_bootstrap_is_near_the_t_interval_of_normal_values() -> None:
    values = np.random.default_rng(3).normal(5, 2, 25)
    found = stats.cluster_bootstrap(values, range(25), draws=20_000)
    half = 2.0639 * values.std(ddof=1) / 5
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)
    assert found == stats.cluster_bootstrap(values, range(25), draws=20_000)
    assert math.isinf(stats.cluster_bootstrap([1.0, 2.0], ["a", "a"]).high)
    assert math.isinf(stats.cluster_bootstrap(values[:7], range(7)).low), "too few to hold the truth in 95 %"
    assert math.isfinite(stats.cluster_bootstrap(values[:8], range(8)).low)


def test_jackknife_of_a_mean_is_the_t_interval() -> None:
    values = np.random.default_rng(4).normal(size=40)
    without = (values.sum() - values) / 39
    found = stats.jackknife(values.mean(), without)
    assert found.high - found.value == pytest.approx(2.0227 * values.std(ddof=1) / math.sqrt(40), rel=1e-4)


def test_holm_in_print() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]


def test_non_inferiority_is_not_the_absence_of_a_difference() -> None:
    assert stats.non_inferior(Interval(-0.01, -0.04, 0.02), 0.05) == "kept"
    assert stats.non_inferior(Interval(-0.01, -0.09, 0.07), 0.05) == "not shown"
    assert stats.non_inferior(Interval(-0.2, -0.3, -0.1), 0.05) == "lost"


@pytest.mark.parametrize(("k", "n"), [(3, 2), (-1, 4), (0, 0)])
def test_what_is_no_share(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        stats.wilson(k, n)


def test_values_without_prompts() -> None:
    with pytest.raises(ValueError, match="one prompt is needed"):
        stats.rate([True], [])


def test_power_is_that_of_simulated_evaluations() -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(150, [0.02, 0.01, 0.97], size=2000)
    lows = {(b, w): stats.tango(b, w, 150)[0] for w, b, _ in counts.tolist()}
    kept = np.mean([lows[b, w] > -0.05 for w, b, _ in counts.tolist()])
    assert stats.power(150, 0.05, lost=0.02, gained=0.01) == pytest.approx(kept, abs=0.03)
    assert stats.power(50, 0.05, lost=0.0, gained=0.0) == 0  # too few even if nothing is lost
    assert stats.power(80, 0.05, lost=0.0, gained=0.0) == pytest.approx(1)
