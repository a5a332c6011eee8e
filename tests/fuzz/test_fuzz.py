"""The fuzzer: odd input to every reader, and the same few things that must hold of every answer (see fuzzing.py).

A minute of it, always the same cases, runs with the other tests. More, with new seeds, by a mark:

    python -m pytest -n0 -s -m fuzz tests/fuzz

takes ten to twenty minutes, and ends with the number of cases by reader, over 20,000 in all. A seed that found
something is printed with the failure; make a small test of what it found, beside the other tests of that part.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase

from fuzzing import COUNTS
from readers import READERS, tried

MANY = {"model folders": 1000}  # cases of a reader with the mark; loading a model takes a while
USUAL = 2400
AT_ONCE = 100  # cases of one seed


@pytest.fixture(scope="module", autouse=True)
def summary() -> Iterator[None]:
    yield
    print(f"\n{sum(COUNTS.values())} cases:", ", ".join(f"{count} {name}" for name, count in COUNTS.items()))


def cases(name: str, count: int, **how: bool) -> Callable[[], None]:
    """A test of so many cases of a reader."""

    def test(value: object) -> None:
        tried(name, value)

    checks = list(HealthCheck)
    how = {"database": None, "deadline": None, "suppress_health_check": checks, **how}  # type: ignore[dict-item]
    return hypothesis.settings(max_examples=count, phases=(Phase.generate, Phase.shrink), **how)(  # type: ignore[arg-type]
        hypothesis.given(READERS[name].given())(test)
    )


@pytest.mark.parametrize("name", READERS)
def test_whatever_is_given_the_answer_is_one_line_and_nothing_is_lost(name: str):
    cases(name, READERS[name].few, derandomize=True)()


@pytest.mark.fuzz
@pytest.mark.parametrize("name", READERS)
def test_so_it_is_with_new_seeds(name: str):
    for _ in range(MANY.get(name, USUAL) // AT_ONCE):
        seed = random.randrange(2**32)
        try:
            hypothesis.seed(seed)(cases(name, AT_ONCE))()
        except BaseException:
            print(f"{name}: seed {seed}")
            raise
