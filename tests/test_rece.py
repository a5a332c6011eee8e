"""RECE: its search against least squares of stacked matrices, and what a round does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearnkit.data.text_columns import erased_matrices, target_of
from unlearnkit.errors import InputError
from unlearnkit.methods import RECE, edit_for
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Run
from unlearnkit.training.net import Net
from unlearnkit.training.panel import Panel

CAT = Request((Concept("cat"),), keep=(Concept("dog"),))


def weights(model: Model, **settings: object) -> dict[str, Tensor]:
    edit = edit_for(model, CAT, method="rece", settings=settings)
    values = {name: weight.detach() for name, weight in model.weights("text").items()}
    return {name: value.double() for name, value in (values | edit.weights).items()}


def test_the_search_is_a_least_squares_problem_over_all_matrices() -> None:
    draws = torch.Generator().manual_seed(0)
    old, new = (
        {name: torch.randn((rows, 5), generator=draws).double() for name, rows in (("k", 4), ("v", 7))}
        for _ in range(2)
    )
    c = torch.randn((5, 3), generator=draws).double()
    found = RECE(search_ridge=0.3).search(old, new, c)
    left = np.concatenate([*(one.numpy() for one in new.values()), 0.3**0.5 * np.eye(5)])
    right = np.concatenate([*((one @ c).numpy() for one in old.values()), np.zeros((5, 3))])
    np.testing.assert_allclose(found.numpy(), np.linalg.lstsq(left, right, rcond=None)[0], atol=1e-10)


def test_without_a_round_it_is_uce(model: Model) -> None:
    how = {"retain_weight": 0.1, "ridge": 0.1, "tokens": "all"}
    uce = edit_for(model, CAT, method="uce", settings=how)
    rece = edit_for(model, CAT, method="rece", settings={"rounds": 0})
    for name, value in uce.weights.items():
        torch.testing.assert_close(rece.weights[name], value)


def test_a_round_is_uces_equation_on_what_the_search_found(model: Model) -> None:
    """Against the normal equations of the loss itself, matrix by matrix."""
    how = {"search_ridge": 1e-3}
    before, after = weights(model, rounds=0), weights(model, rounds=1, **how)
    old = {name: weight.detach().double() for name, weight in model.weights("text").items()}
    c, g, _ = erased_matrices(model, [(CAT.erase[0], "{}", "cat")], last=False)
    found = RECE(**how).search(old, before, c)  # type: ignore[arg-type]
    empty, dog = (model.text([word])[0].T.double() for word in ("", "dog"))
    kept = torch.cat([empty, dog], dim=1)
    for name, w in before.items():
        # λ |W' - W|² + |W' c - W g|² + |W' c' - W g|² + s_k |W' k - W k|² is least where its derivative is 0
        w2 = after[name]
        slope = 0.1 * (w2 - w) + 0.1 * (w2 - w) @ kept @ kept.T
        slope += (w2 @ found - w @ g) @ found.T + (w2 @ c - w @ g) @ c.T
        assert slope.abs().max() < 1e-3 * ((w @ found - w @ g) @ found.T).abs().max()
    target = {name: old[name] @ c for name in old}
    gaps = [
        sum(((w[name] @ found - target[name]) ** 2).sum().item() for name in old) for w in (before, after)
    ]
    assert gaps[1] > 2 * gaps[0]  # what led to the concept no longer does


def test_a_round_leaves_the_concept_nearer_to_its_replacement_than_to_itself(model: Model) -> None:
    c, g, _ = erased_matrices(model, [(CAT.erase[0], "{}", "cat")], last=False)
    old = {name: weight.detach().double() for name, weight in model.weights("text").items()}
    new = weights(model, rounds=1)
    to_itself, to_other = (
        sum(((new[name] @ c - old[name] @ one) ** 2).sum().item() for name in old) for one in (c, g)
    )
    assert to_other < to_itself


def test_further_rounds_change_more(model: Model) -> None:
    one, two = (weights(model, rounds=rounds) for rounds in (1, 2))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_the_reading_is_of_the_edit_itself(model: Model) -> None:
    edit = edit_for(model, CAT, method="rece", settings={"reach": 0.5, "rounds": 2})
    panel = Panel(Run(model, CAT, Net(model)), target_of)
    with model.wearing(edit):
        reading = panel.read()
    (facts,) = edit.facts["stopped"]
    assert (facts["come"], facts["moved"]) == (round(reading.come, 4), round(reading.moved, 4))


def test_without_weight_nothing_is_solved(model: Model) -> None:
    with pytest.raises(InputError):
        edit_for(model, CAT, method="uce", settings={"erase_weight": 0.0, "free": 0.0})
