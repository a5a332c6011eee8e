"""Hellinger and chi-square distances in place of the mean squared error: by hand, and in the methods that have them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quick import quick
from test_ca import first

from unlearnkit.errors import InputError
from unlearnkit.methods import METHODS, edit_for
from unlearnkit.model.model import Model
from unlearnkit.parts.divergence import divergence
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job

CAT = Request((Concept("cat", instead="dog"),), keep=(Concept("dog"),))
METHOD: dict[str, tuple[str, dict[str, Any]]] = {
    "esd": ("erase", {"start": "pictures", "eta": 30.0}),
    "ca": ("erase", {"target": "noise"}),
    "sculpting": ("erase", {"mask": "none", "eta": 30.0}),
    "duge": (
        "erase_output",
        {"attention_weight": 0.0, "output_weight": 1.0, "target": "steered", "eta": 30.0},
    ),
}


def test_the_numbers_are_those_of_the_definitions() -> None:
    a, b = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]]), torch.tensor([[[[0.0, 0.0]]], [[[0.0, 1.0]]]])
    errors = np.array([2.5, 0.5])
    assert divergence(a, b, "mse", 2.0).item() == pytest.approx(errors.mean())
    assert divergence(a, b, "hellinger", 2.0).item() == pytest.approx(((1 - np.exp(-2 * errors)) / 2).mean())
    assert divergence(a, b, "chi2", 2.0).item() == pytest.approx(((np.exp(2 * errors) - 1) / 2).mean())


@pytest.mark.parametrize(("kind", "sign"), [("hellinger", -1), ("chi2", 1)])
def test_the_gradient_is_the_squared_errors_times_an_exponential_of_each_sample(kind: Any, sign: int) -> None:
    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randn((3, 2, 4, 4), generator=draws).requires_grad_() for _ in range(2))
    (gradient,) = torch.autograd.grad(divergence(a, b, kind, 0.7), a)
    (usual,) = torch.autograd.grad(divergence(a, b, "mse", 0.7), a)
    errors = (a - b).square().mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(gradient, usual * (sign * 0.7 * errors).exp())


def test_a_small_scale_is_the_mean_squared_error() -> None:
    a, b = torch.full((2, 1, 2, 2), 3.0), torch.zeros((2, 1, 2, 2))
    for kind in ("hellinger", "chi2"):
        assert divergence(a, b, kind, 1e-6).item() == pytest.approx(9.0, rel=1e-4)


@pytest.mark.parametrize("method", METHOD)
def test_a_methods_erasing_loss_follows_it(method: str, model: Model, tmp_path: Path) -> None:
    """With one picture a step the loss is a function of the squared error."""
    name, own = METHOD[method]
    for kind in ("mse", "hellinger", "chi2"):
        settings = quick(method, 1, **own, batch=1, divergence=kind, divergence_scale=0.5)
        edit_for(model, CAT, method=method, settings=settings, job=Job(folder=tmp_path / kind))
    error, hellinger, chi2 = (first(tmp_path / kind)[name] for kind in ("mse", "hellinger", "chi2"))
    assert error > 0.01
    assert hellinger == pytest.approx(2 * (1 - math.exp(-0.5 * error)), rel=1e-4)
    assert chi2 == pytest.approx(2 * (math.exp(0.5 * error) - 1), rel=1e-4)


def test_only_methods_with_the_setting_take_it(model: Model) -> None:
    with pytest.raises(InputError, match="divergence"):
        edit_for(model, CAT, method="ga", settings={"divergence": "hellinger"})
    with pytest.raises(InputError, match="divergence_scale"):
        edit_for(model, CAT, method="ca", settings={"divergence_scale": 0.0})
    assert {name for name, one in METHODS.items() if "divergence" in one.__dataclass_fields__} == set(METHOD)
