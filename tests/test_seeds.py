from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.seeds import derive, generator, stream

labels = st.lists(st.one_of(st.text(max_size=8), st.integers()), max_size=4)


@given(st.integers(0, 2**63 - 1), labels)
def test_derive_is_stable_and_in_range(seed: int, names: list[str | int]) -> None:
    assert derive(seed, *names) == derive(seed, *names)
    assert 0 <= derive(seed, *names) < 2**63


@given(st.integers(0, 2**63 - 1), labels, labels)
def test_other_labels_give_another_seed(seed: int, some: list[str | int], others: list[str | int]) -> None:
    same = [(type(x), x) for x in some] == [(type(x), x) for x in others]
    assert (derive(seed, *some) == derive(seed, *others)) == same


def test_derive_has_not_changed() -> None:
    assert derive(0) == 3456079177858693020
    assert derive(7, "esd", 3) == 2538429985081768800


def test_a_label_is_not_the_text_that_it_looks_like() -> None:
    assert derive(0, 1) != derive(0, "1")
    assert derive(0, "a", "b") != derive(0, "ab")


def test_streams_touch_no_global_state() -> None:
    before = torch.get_rng_state()
    first = torch.randn(4, generator=stream(1, "x"))
    assert torch.equal(first, torch.randn(4, generator=stream(1, "x")))
    assert not torch.equal(first, torch.randn(4, generator=stream(1, "y")))
    assert torch.equal(
        torch.randn(4, generator=generator(3)), torch.randn(4, generator=torch.Generator().manual_seed(3))
    )
    assert torch.equal(before, torch.get_rng_state())
