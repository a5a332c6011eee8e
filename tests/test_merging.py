"""Merged edits against numbers worked out by hand, and what must hold for all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unlearnkit.chain.merging import Merge, combined, merged, trimmed
from unlearnkit.errors import InputError
from unlearnkit.settings import build

few = settings(max_examples=60, deadline=None)
numbers = st.floats(-8, 8, width=16)
changes = st.integers(1, 4).flatmap(
    lambda count: st.lists(st.lists(numbers, min_size=6, max_size=6), min_size=count, max_size=count)
)


def rows(values: list[list[float]]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float64) for row in values]


TWO = rows([[4.0, -1.0, 2.0, 0.5], [-1.0, -3.0, 2.0, 0.1]])


def test_mean_and_arithmetic_by_hand() -> None:
    # sums are 3, -4, 4, 0.6
    mean = combined(TWO, 2, Merge(rule="mean", scale=(1.0,)))
    assert torch.allclose(mean, torch.tensor([1.5, -2.0, 2.0, 0.3], dtype=torch.float64))
    total = combined(TWO, 2, Merge(rule="arithmetic", scale=(1.0, 0.5)))
    assert torch.allclose(total, torch.tensor([1.5, -2.0, 2.0, 0.3], dtype=torch.float64))
    third = combined(
        TWO[:1], 3, Merge(rule="mean", scale=(3.0,))
    )  # two of three edits leave this weight alone
    assert torch.equal(third, TWO[0])


def test_ties_by_hand() -> None:
    # half of four entries stay: [4, 0, 2, 0] and [0, -3, 2, 0]; signs of the sums + - + 0
    # means of those that agree: 4 of one, -3 of one, (2 + 2) / 2, none; times 1.5
    found = combined(TWO, 2, Merge(rule="ties", scale=(1.0, 1.5), trim=(1.0, 0.5)))
    assert found.tolist() == [6.0, -4.5, 3.0, 0.0]
    # nothing trimmed: the first entry's sum is 3, so only the 4 has its sign; the last is (0.5 + 0.1) / 2
    whole = combined(TWO, 2, Merge(rule="ties", scale=(1.0,), trim=(1.0,)))
    assert torch.allclose(whole, torch.tensor([4.0, -2.0, 2.0, 0.3], dtype=torch.float64))


def test_trimming_keeps_exactly_its_share_and_at_least_one() -> None:
    assert trimmed(torch.tensor([[1.0, -5.0], [2.0, 0.1]]), 0.5).tolist() == [[0.0, -5.0], [2.0, 0.0]]
    assert trimmed(torch.tensor([1.0, -5.0]), 0.0).tolist() == [0.0, -5.0]


@pytest.mark.parametrize("rule", ["ties", "arithmetic", "mean"])
def test_one_edit_alone_is_itself_bit_for_bit(rule: str) -> None:
    base = {"a": torch.randn(5, 3, generator=torch.Generator().manual_seed(1))}
    edit = {"a": torch.randn(5, 3, generator=torch.Generator().manual_seed(2))}
    found = merged(base, [edit], build(Merge, {"rule": rule}))
    assert torch.equal(found["a"], edit["a"])
    assert found["a"].dtype == torch.float32


@few
@given(changes)
def test_equal_edits_are_one_edit(values: list[list[float]]) -> None:
    same = rows([values[0]] * len(values))
    for rule in ("ties", "mean"):
        found = combined(same, len(same), build(Merge, {"rule": rule, "scale": (1.0,), "trim": (1.0,)}))
        assert torch.allclose(found, same[0])


@few
@given(changes, st.randoms())
def test_the_order_of_edits_hardly_matters(values: list[list[float]], random: Any) -> None:
    mixed = list(values)
    random.shuffle(mixed)
    for rule in ("ties", "arithmetic", "mean"):
        merge = build(Merge, {"rule": rule})
        one, two = (combined(rows(part), len(part), merge) for part in (values, mixed))
        assert torch.allclose(one, two, atol=1e-9)


@few
@given(changes)
def test_ties_never_goes_against_the_elected_sign_nor_beyond_the_largest(values: list[list[float]]) -> None:
    parts = rows(values)
    found = combined(parts, len(parts), Merge(rule="ties", scale=(1.0,), trim=(1.0,)))
    total = torch.stack(parts).sum(0)
    assert bool((found * total >= 0).all())
    assert bool((found.abs() <= torch.stack(parts).abs().amax(0) + 1e-9).all())


def test_the_last_scale_holds_for_all_that_follow() -> None:
    merge = Merge(rule="arithmetic", scale=(1.0, 2.0))
    one = torch.ones(1, dtype=torch.float64)
    assert [combined([one], count, merge).item() for count in (1, 2, 3, 9)] == [1.0, 2.0, 2.0, 2.0]
    with pytest.raises(InputError, match="scale"):
        build(Merge, {"scale": ()})
