"""Orthogonal Concept Erasure: by hand, and by what an orthogonal matrix must keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearnkit.methods import edit_for
from unlearnkit.methods.oce import OCE
from unlearnkit.model import batches
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request

REQUEST = Request((Concept("cat", instead="bear"),), keep=(Concept("dog"), Concept("car")))
EYE = torch.eye(2, dtype=torch.float64)


def columns(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_the_rotation_by_hand() -> None:
    # g at 45 degrees, g* at 0: (I - R*) R = [[0, 0], [1/2, 1/2]], M = [[1, 0], [-1/2, 1/2]], whose polar factor turns
    # by θ with tan θ = (M21 - M12) / (M11 + M22) = -1/3: towards g*. M's S₁² is (3 + √5) / 4, and 1e-4 S₁ I is added
    found = OCE(erase_weight=1.0).rotation(EYE, columns([1.0], [1.0]), columns([5.0], [0.0]), EYE)
    three = 3 + 4e-4 * ((3 + 5**0.5) / 4) ** 0.5
    root = (1 + three**2) ** 0.5
    torch.testing.assert_close(found, columns([three / root, 1 / root], [-1 / root, three / root]))


@pytest.mark.parametrize("weight", [0.01, 0.1, 0.5])
def test_a_larger_weight_turns_the_concept_closer_to_its_anchor(weight: float) -> None:
    draws = torch.Generator().manual_seed(0)
    w, c, g = (torch.randn((6, n), generator=draws, dtype=torch.float64) for n in (6, 1, 1))
    g = c + 0.7 * g

    def cosine(size: float) -> float:
        p = OCE(erase_weight=size).rotation(w, c, g, torch.eye(6, dtype=torch.float64))
        return torch.cosine_similarity((p @ w @ c).T, (w @ g).T).item()

    assert cosine(0.0) < cosine(weight) < cosine(2 * weight)
    assert cosine(0.0) == pytest.approx(torch.cosine_similarity((w @ c).T, (w @ g).T).item())


def test_the_rotation_is_the_best_orthogonal_matrix() -> None:
    """By an independent route: no small turn of P lowers λ_e |P R - (I - R*)|² ... + |P W K - W K|²."""
    draws = np.random.default_rng(0)
    w, c, g, k = (draws.normal(size=(5, n)) for n in (5, 2, 2, 7))
    weight = 0.3
    p = OCE(erase_weight=weight).rotation(*map(torch.tensor, (w, c, g, k @ k.T))).numpy()
    r, r_anchor = (x @ np.linalg.inv(x.T @ x) @ x.T for x in (w @ c, w @ g))

    def cost(p: np.ndarray) -> float:
        away = np.linalg.norm(p @ r - (np.eye(5) - r_anchor)) ** 2
        return float(-weight * away + np.linalg.norm(p @ w @ k - w @ k) ** 2)

    np.testing.assert_allclose(p.T @ p, np.eye(5), atol=1e-10)
    for _ in range(50):
        turn = draws.normal(size=(5, 5)) * 1e-3
        near, _ = np.linalg.qr(p + p @ (turn - turn.T))
        near *= np.sign(np.diag(near.T @ p))
        assert cost(near) > cost(p)


def test_only_keys_turn_and_their_columns_keep_lengths_and_angles(model: Model) -> None:
    edit = edit_for(model, REQUEST, method="oce")
    assert edit.weights and all(".attn2.to_k." in name for name in edit.weights)
    before = model.weights("keys")
    assert edit.weights.keys() == before.keys()
    for name, value in edit.weights.items():
        torch.testing.assert_close(value.T @ value, before[name].T @ before[name], rtol=1e-4, atol=1e-5)


def test_a_tall_matrix_is_turned_as_the_rotation_of_all_its_rows_turns_it() -> None:
    draws = torch.Generator().manual_seed(0)
    w, c1, anchors, k = (
        torch.randn(shape, generator=draws, dtype=torch.float64) for shape in ((9, 5), (5, 2), (5, 2), (5, 7))
    )
    found = OCE(erase_weight=30.0).turned(w, c1, anchors, k @ k.T)
    torch.testing.assert_close(found, OCE(erase_weight=30.0).rotation(w, c1, anchors, k @ k.T) @ w)
    assert (found - w).norm() > 0.1 * w.norm()


def test_without_an_erasing_weight_nothing_turns(model: Model) -> None:
    w = torch.randn((7, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c, g = torch.eye(4, dtype=torch.float64)[:, :1], torch.eye(4, dtype=torch.float64)[:, 1:2]
    hold = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(OCE(erase_weight=0.0).rotation(w, c, g, hold) @ w, w)
    torch.testing.assert_close(OCE().rotation(w, c, 3 * c, hold) @ w, w)  # a concept that is its own anchor


def test_many_concepts_are_solved_as_few(make: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    few = edit_for(make(), REQUEST, method="oce")
    monkeypatch.setattr(batches, "MANY", 0)
    many = edit_for(make(), REQUEST, method="oce")
    for name, weight in few.weights.items():
        torch.testing.assert_close(many.weights[name], weight, rtol=1e-3, atol=1e-4)
