"""How often the 95 % intervals of ``unlearnkit.metrics.stats`` hold the truth, in simulated evaluations.

    python benchmarks/coverage.py [--draws 20000] [--prompts 20 50 100 300 1000]

Wilson and Tango: exact sums over every possible table would favour single truths, so the truth is drawn anew for each
simulated evaluation (shares uniform in [0.02, 0.98]; gained and lost shares uniform on what they leave each other), as
a reader of many reports meets it. Clustered rows: prompts of 3 pictures whose own share is beta-distributed with an
intra-prompt correlation of 0.3. Bootstrap: means of values with a prompt effect as large as the picture effect, from
a normal and from a skewed (beta 2, 5) distribution.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

import numpy as np

from unlearnkit.metrics import stats

SIZES = (20, 50, 100, 300, 1000)
CORRELATION = 0.3


def wilson(n: int, draws: int, rng: np.random.Generator) -> float:
    truth = rng.uniform(0.02, 0.98, draws)
    bounds = np.array([stats.wilson(k, n) for k in range(n + 1)])[rng.binomial(n, truth)]
    return float(((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean())


def mcnemar_difference(n: int, draws: int, rng: np.random.Generator) -> float:
    bounds = functools.cache(stats.tango)
    held = 0
    for _ in range(draws):
        gained, lost, _ = rng.dirichlet((1, 1, 1))
        b, c, _ = rng.multinomial(n, (gained, lost, 1 - gained - lost))
        low, high = bounds(int(b), int(c), n)
        held += low <= gained - lost <= high
    return held / draws


def clustered_rate(n: int, draws: int, rng: np.random.Generator) -> float:
    held, prompts, size = 0, np.repeat(np.arange(n), 3), (1 - CORRELATION) / CORRELATION
    for _ in range(draws):
        truth = rng.uniform(0.1, 0.9)
        own = rng.beta(truth * size, (1 - truth) * size, n)
        found = stats.rate((rng.random(3 * n) < own[prompts]).tolist(), prompts.tolist())
        held += found.low <= truth <= found.high
    return held / draws


def clustered_difference(n: int, draws: int, rng: np.random.Generator) -> float:
    held, prompts, size = 0, np.repeat(np.arange(n), 3), (1 - CORRELATION) / CORRELATION
    for _ in range(draws):
        p, q = rng.uniform(0.1, 0.9, 2)
        before = rng.random(3 * n) < rng.beta(p * size, (1 - p) * size, n)[prompts]
        after = rng.random(3 * n) < rng.beta(q * size, (1 - q) * size, n)[prompts]
        found = stats.difference(before.tolist(), after.tolist(), prompts.tolist())
        held += found.low <= q - p <= found.high
    return held / draws


def bootstrap(n: int, draws: int, rng: np.random.Generator, *, skewed: bool) -> float:
    held, prompts, truth = 0, np.repeat(np.arange(n), 2), 2 / 7 if skewed else 0.0
    for _ in range(draws):
        own = rng.beta(2, 5, n) if skewed else rng.normal(size=n)
        noise = rng.normal(size=2 * n) * (0.16 if skewed else 1.0)
        values = (own[prompts] + noise).tolist()
        found = stats.cluster_bootstrap(values, prompts.tolist())  # the resamples are always the same
        held += found.low <= truth <= found.high
    return held / draws


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", type=int, nargs="+", default=SIZES)
    given = parser.parse_args()
    methods: dict[str, Callable[..., float]] = {
        "Wilson": wilson,
        "paired difference (Tango)": mcnemar_difference,
        "clustered rate": clustered_rate,
        "clustered difference": clustered_difference,
        "cluster bootstrap, normal": functools.partial(bootstrap, skewed=False),
        "cluster bootstrap, skewed": functools.partial(bootstrap, skewed=True),
    }
    print(f"{'coverage of 95 % in %, prompts:':34}" + "".join(f"{n:>7}" for n in given.prompts))
    for title, method in methods.items():
        rng = np.random.default_rng(given.seed)
        shares = []
        for n in given.prompts:
            # the slow ones at n = 1000 take fewer draws: +-0.5 points are enough to tell 95 +- 1.5
            slow = method not in (wilson, mcnemar_difference)
            shares.append(method(n, min(given.draws, 2_000_000 // n) if slow else given.draws, rng))
        print(f"{title:34}" + "".join(f"{100 * share:7.1f}" for share in shares), flush=True)
