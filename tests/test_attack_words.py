"""Searching over words: the words of every tokenizer, their vectors, and the moves between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_families import SIZE, TITLES

import kinds
from unlearnkit.attacks.words import Words, sampled, simplex, swaps, words_of
from unlearnkit.model.encoders import placeholder, pooled
from unlearnkit.model.model import Model

TEXT = [title for title in TITLES if not title.startswith("class-conditional")]


@pytest.mark.parametrize("title", TEXT)
def test_the_vectors_of_words_are_those_of_their_text(title: str, words: Path) -> None:
    """A prefix of one-hot shares gives, bit for bit, the conditioning of the prompt that begins with its words."""
    model = Model(kinds.pipeline(title, words), source="tiny", hints=SIZE)
    known = words_of(model)
    assert {"dog", "photo"} <= set(known.texts)
    which = torch.tensor([known.texts.index("photo"), known.texts.index("dog")])
    vectors = known.vectors(torch.nn.functional.one_hot(which, len(known)))
    with torch.no_grad():
        found = model.conditioning([f"{placeholder(model.pipe, 2)} in art"], vectors)
    torch.testing.assert_close(found, model.encode(["photo dog in art"]), rtol=0, atol=0)
    assert known.nearest(vectors).tolist() == which.tolist()
    assert known.text(which) == "photo dog"


def test_words_leave_out_the_concept(model: Model) -> None:
    known = words_of(model, without=["a Kitten", "van gogh"]).texts
    assert not {"a", "kitten", "van", "gogh"} & set(known)
    assert "cat" in known  # a piece of two letters or less counts only as a whole word
    assert "in" in words_of(model, without=["cat"]).texts


def test_the_sentence_vector_is_the_encoders_own(make: Callable[..., Model], words: Path) -> None:
    model = make()
    with torch.no_grad(), pooled(model.pipe) as found:
        states = model.conditioning(["a cat"])
    end = model.last_token("a cat") + 1  # CLIP pools at the end token
    torch.testing.assert_close(found["text_encoder"][0], states[0, end], rtol=0, atol=0)
    t5 = Model(kinds.pipeline("PixArt-Sigma", words), source="tiny", hints=SIZE)
    with torch.no_grad(), pooled(t5.pipe) as found:
        t5.conditioning(["cat"])
    assert found["text_encoder"].shape == (1, t5.pipe.text_encoder.config.d_model)


def test_simplex_is_the_nearest_point() -> None:
    """Against bisection on the threshold, as the released code of UnlearnDiffAtk solves it."""
    rows = torch.randn((5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = []
    for row in rows.numpy():
        low, high = row.min() - 1, row.max()
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if np.clip(row - middle, 0, None).sum() > 1 else (low, middle)
        expected.append(np.clip(row - low, 0, None))
    np.testing.assert_allclose(simplex(rows).numpy(), expected, atol=1e-12)
    inside = torch.tensor([[0.2, 0.3, 0.5]])
    torch.testing.assert_close(simplex(inside), inside)


def test_sampled_rows_are_one_hot_and_follow_their_shares() -> None:
    shares = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    rows = torch.stack([sampled(shares, torch.Generator().manual_seed(seed)).detach() for seed in range(200)])
    assert rows.sum(2).eq(1).all()
    assert rows[:, 0, 1].eq(1).all()
    assert 70 < rows[:, 1, 0].sum() < 130


def test_swaps_change_one_place_to_the_words_that_lower_the_loss_most() -> None:
    gradient = torch.tensor([[0.0, 0, 0, 0], [3.0, -2, 1, -5]])
    which = torch.tensor([2, 0])
    found = swaps(which, gradient, place=1, best=2, count=9, draws=torch.Generator().manual_seed(0))
    assert sorted(found.tolist()) == [[2, 1], [2, 3]]
    assert which.tolist() == [2, 0]


def test_nearest_weighs_every_encoder() -> None:
    known = Words(("one", "two"), {"a": torch.eye(2), "b": torch.tensor([[0.0, 1.0], [1.0, 0.0]])})
    assert known.nearest({"a": torch.tensor([[1.0, 0.9]]), "b": torch.tensor([[5.0, 0.0]])}).tolist() == [1]
