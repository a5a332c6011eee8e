"""SPEED's closed form by hand and by an independent route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearnkit.errors import InputError
from unlearnkit.methods import SPEED, edit_for
from unlearnkit.methods.speed import _moved, _solution
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request

CAT = Request((Concept("cat"),))


def columns(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_the_solution_by_hand() -> None:
    # (1, 0) is retained, so P' = diag(0, 1); c = (0, 1) goes to (1, 0): W (g - c) / (1 + 1) cᵀ
    p = SPEED().projector(columns([1.0], [0.0]), columns([1.0], [0.0]))
    torch.testing.assert_close(p, columns([0.0, 0.0], [0.0, 1.0]))
    change, share = _solution(
        torch.eye(2, dtype=torch.float64), columns([0.0], [1.0]), columns([1.0], [0.0]), p
    )
    torch.testing.assert_close(change, columns([0.0, 0.5], [0.0, -0.5]))
    assert share == 0.5


def test_the_threshold_is_of_the_mean_over_what_is_retained() -> None:
    # columns (2, 0) and (0, 1): C₀C₀ᵀ / 2 has the eigenvalues 2 and 0.5; below 0.6 the second counts as 0
    nothing = columns([0.0], [0.0])
    for threshold, free in ((0.4, 0.0), (0.6, 1.0)):
        p = SPEED(threshold=threshold).projector(columns([2.0, 0.0], [0.0, 1.0]), nothing)
        torch.testing.assert_close(p, columns([0.0, 0.0], [0.0, free]))


def test_with_nothing_retained_all_but_c2_may_move() -> None:
    c2 = torch.tensor([[0.0], [2.0], [0.0]], dtype=torch.float64)
    p = SPEED().projector(torch.zeros(3, 0, dtype=torch.float64), c2)
    torch.testing.assert_close(p, torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)))


def test_the_solution_is_the_least_squares_with_constraints() -> None:
    """By an independent route: KKT equations of the constrained problem, over the entries of Δ restricted to P."""
    draws = np.random.default_rng(0)
    d, c1, target, c0, c2 = 7, *(draws.normal(size=(7, n)) for n in (2, 2, 2, 1))
    w = draws.normal(size=(1, d))
    p = SPEED(threshold=1e-8).projector(torch.tensor(c0), torch.tensor(c2))
    found, _ = _solution(torch.tensor(w), torch.tensor(c1), torch.tensor(target), p)
    u, size, _ = np.linalg.svd(c0)
    free = u[:, 2:]  # a basis of the null space: ΔP = x freeᵀ
    a = free.T @ c1
    kkt = np.block([[a @ a.T + np.eye(5), free.T @ c2], [(free.T @ c2).T, np.zeros((1, 1))]])
    right = np.concatenate([(w @ target - w @ c1) @ a.T, np.zeros((1, 1))], axis=1)
    x = np.linalg.solve(kkt, right.T)[:5].T
    np.testing.assert_allclose(found.numpy(), x @ free.T, atol=1e-10)
    np.testing.assert_allclose(found.numpy() @ c0, 0, atol=1e-10)
    np.testing.assert_allclose(found.numpy() @ c2, 0, atol=1e-10)
    assert size.min() > 1e-3


def test_the_filter_keeps_what_erasing_alone_moves_more_than_the_mean() -> None:
    # Δ_erase = (g - c) cᵀ / (1 + |c|²) with c = (1, 0), g = (0, 0): it moves (x, y) by x / 2
    c, g = columns([1.0], [0.0]), columns([0.0], [0.0])
    words = columns([0.0, 1.0, 4.0], [5.0, 5.0, 0.0])
    torch.testing.assert_close(_moved(torch.eye(2, dtype=torch.float64), words, c, g), columns([4.0], [0.0]))


def test_only_values_move_and_what_is_retained_is_read_as_before(model: Model) -> None:
    two = replace(CAT, keep=(Concept("dog"), Concept("car")))
    edit = edit_for(model, two, method="speed", settings={"threshold": 1e-6})
    assert edit.weights and all(".attn2.to_v." in name for name in edit.weights)
    before = model.weights("values")
    cat, dog, empty = (model.text([word])[0][at].double() for word, at in (("cat", 1), ("dog", 1), ("", 0)))
    for name, value in edit.weights.items():
        change = (value - before[name]).double()
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == 1
        moved = (change @ cat).norm()
        assert moved > 1e-3
        assert (change @ empty).norm() < 1e-4 * moved
        # one of the two retained words passes the filter, the nearer one
        assert min((change @ dog).norm(), (change @ model.text(["car"])[0][1].double()).norm()) < 1e-4 * moved


def test_a_concept_within_what_is_retained_is_refused(make: Callable[..., Model]) -> None:
    model = make()
    same = Request((Concept("cat"),), keep=(Concept("kitten"),))
    encode = model.text
    model.text = lambda prompts: encode(["cat" if one == "kitten" else one for one in prompts])  # type: ignore[method-assign]
    with pytest.raises(InputError, match="lies in the span of what is retained"):
        edit_for(model, same, method="speed", settings={"threshold": 1e-6})
