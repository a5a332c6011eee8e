"""Double Projections: by hand, and by an independent route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearnkit.errors import InputError
from unlearnkit.methods import UCE, edit_for
from unlearnkit.methods.dp import DP, delta
from unlearnkit.model import batches
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request

REQUEST = Request((Concept("cat"),), keep=(Concept("dog"), Concept("car")))
ALL = {"protected": 1.0, "templates": False}


def columns(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_the_solution_by_hand() -> None:
    # (1, 0) is protected, so P = diag(0, 1); c = (1, 1) goes to g = (2, 0): (g - c) (0, 1)
    p = DP(protected=1.0).projector(columns([1.0], [0.0]))
    torch.testing.assert_close(p, columns([0.0, 0.0], [0.0, 1.0]))
    c, g = columns([1.0], [1.0]), columns([2.0], [0.0])
    torch.testing.assert_close(delta(c, g, p), columns([0.0, 1.0], [0.0, -1.0]))


def test_the_first_projection_by_hand() -> None:
    c, g, k = (
        columns([1.0], [1.0], [3.0]),
        columns([2.0], [0.0], [0.0]),
        columns([9.0, 0.0], [0.0, 1.0], [0.0, 0.0]),
    )
    assert torch.equal(DP(safe=0).safe_columns(c, g, k), g)
    torch.testing.assert_close(DP(safe=1).safe_columns(c, g, k), columns([1.0], [0.0], [0.0]))
    # both retained columns have the cosine 1/√11: the first of them stays
    torch.testing.assert_close(DP(safe=2).safe_columns(c, g, k), columns([1.0], [0.0], [0.0]))
    torch.testing.assert_close(DP(safe=3).safe_columns(c, g, k), columns([1.0], [1.0], [0.0]))


def test_the_solution_is_the_smallest_that_meets_both_demands() -> None:
    """By an independent route: the least-norm solution of ΔW [K C] = [0 W (G - C)], by a pseudo-inverse of [K C]."""
    draws = np.random.default_rng(0)
    c, g, k = (draws.normal(size=(9, n)) for n in (2, 2, 3))
    p = DP(protected=1.0).projector(torch.tensor(k))
    found = delta(torch.tensor(c), torch.tensor(g), p).numpy()
    expected = np.hstack([np.zeros((9, 3)), g - c]) @ np.linalg.pinv(np.hstack([k, c]))
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_without_anything_retained_it_is_uce_without_ridge() -> None:
    draws = torch.Generator().manual_seed(0)
    c, g = (torch.randn((6, 2), generator=draws, dtype=torch.float64) for _ in range(2))
    uce = UCE(ridge=1e-9)
    expected = uce.delta(c @ c.T, (g - c) @ c.T, torch.zeros(6, 6, dtype=torch.float64))
    torch.testing.assert_close(delta(c, g, torch.eye(6, dtype=torch.float64)), expected, rtol=1e-5, atol=1e-6)


def test_some_of_the_energy_may_stay_unprotected() -> None:
    k = columns([3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0])  # energies 9 and 1, and a free direction
    for protected, rank in ((1.0, 1), (0.95, 1), (0.85, 2), (0.5, 2), (0.0, 3)):
        assert DP(protected=protected).projector(k).trace().item() == pytest.approx(rank)


def test_what_is_retained_is_read_as_before_and_the_concept_as_the_anchor(model: Model) -> None:
    edit = edit_for(model, REQUEST, method="dp", settings={**ALL, "safe": 0})
    assert edit.weights.keys() == model.weights("text").keys()
    before = model.weights("text")
    cat, dog, car, start = (
        model.text([word])[0][at].double() for word, at in (("cat", 1), ("dog", 1), ("car", 1), ("", 0))
    )
    for name, value in edit.weights.items():
        w, edited = before[name].double(), value.double()
        assert torch.linalg.matrix_rank(edited - w, rtol=1e-4) == 1
        for kept in (dog, car, start):
            torch.testing.assert_close(edited @ kept, w @ kept, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(edited @ cat, w @ start, rtol=1e-4, atol=1e-5)


def test_a_concept_within_what_is_retained_is_named(model: Model) -> None:
    several = Request((Concept("cat"), Concept("bear")), keep=(Concept("dog"), Concept("car")))
    with pytest.raises(InputError, match=r"^'cat', 'bear' lie in the span of what is retained"):
        edit_for(model, several, method="dp", settings={**ALL, "free": 1.0})


@pytest.mark.parametrize("settings", [{}, {"safe": 0}, {"safe": 2}])
def test_many_concepts_are_solved_as_few(
    make: Callable[..., Model], settings: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(REQUEST, erase=(Concept("cat"), Concept("van gogh", "style")))
    few = edit_for(make(), request, method="dp", settings={**ALL, **settings})
    monkeypatch.setattr(batches, "MANY", 0)
    many = edit_for(make(), request, method="dp", settings={**ALL, **settings})
    for name, weight in few.weights.items():
        torch.testing.assert_close(many.weights[name], weight, rtol=1e-4, atol=1e-5)
