"""EraseDiff: the weight of forgetting by hand, and what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ca import batch, plain
from torch import Tensor

from unlearnkit.errors import InputError
from unlearnkit.methods import edit_for
from unlearnkit.methods.erasediff import balanced
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job

CAT = Request((Concept("cat", instead="car"),), keep=(Concept("dog"),))
QUICK: dict[str, Any] = {"steps": 1, "batch": 3, "pictures": 3, "retain_pictures": 3, "lr": 1e-3}
DOGS, CATS, CARS = ([word, f"a photo of a {word}", f"{word} in a picture"] for word in ("dog", "cat", "car"))


def erase(model: Model, request: Request = CAT, *, job: Job | None = None, **changes: Any) -> Edit:
    return edit_for(model, request, method="erasediff", settings=QUICK | changes, seed=2, job=job)


def step(g_f: list[float], g_r: list[float], eta: float, *, cosine: bool) -> Tensor:
    weights = {"a": torch.zeros(len(g_f), requires_grad=True)}
    losses = {
        "erase": (weights["a"] * torch.tensor(g_f)).sum(),
        "retain": (weights["a"] * torch.tensor(g_r)).sum(),
    }
    return balanced(eta, cosine=cosine)(0, losses, weights)["a"]


def test_the_weight_by_hand() -> None:
    # <g_r, g_f> = -4, |g_f|² = 4: λ = 0.1 + 1
    torch.testing.assert_close(step([2.0, 0.0], [-2.0, 1.0], 0.1, cosine=False), torch.tensor([0.2, 1.0]))
    # cos = -0.6: λ = 0.1 + 0.6
    torch.testing.assert_close(step([2.0, 0.0], [-3.0, 4.0], 0.1, cosine=True), torch.tensor([-1.6, 4.0]))
    # keeping forgets fast enough by itself: λ = 0
    torch.testing.assert_close(step([2.0, 0.0], [3.0, 1.0], 0.1, cosine=False), torch.tensor([3.0, 1.0]))
    # nothing to forget
    torch.testing.assert_close(step([0.0, 0.0], [3.0, 1.0], 0.1, cosine=False), torch.tensor([3.0, 1.0]))


vectors = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3)


@given(vectors, vectors, st.floats(0, 2, width=32))
@settings(max_examples=60, deadline=None)
def test_forgetting_goes_on_by_eta_at_least(g_f: list[float], g_r: list[float], eta: float) -> None:
    f = torch.tensor(g_f).double()
    u = step(g_f, g_r, eta, cosine=False).double()
    slack = 1e-5 * (1 + f.norm() * (torch.tensor(g_r).norm() + eta * f.norm()))
    assert (u @ f).item() >= (eta * f @ f - slack).item()


@pytest.mark.parametrize("target", ["anchor", "uniform"])
def test_the_first_losses_are_those_of_the_plain_network(target: str, model: Model, tmp_path: Path) -> None:
    erase(model, target=target, balance="fixed", erase_weight=0.5, job=Job(folder=tmp_path))
    line = json.loads((tmp_path / "log.jsonl").read_text())
    x, t, _, which = batch(model, "erasediff", CATS)
    told = plain(model, x, t, [CATS[place] for place in which])
    if target == "anchor":
        wanted = plain(model, x, t, [CARS[place] for place in which])
        assert line["erase"] == pytest.approx(0.5 * (told - wanted).square().mean().item(), rel=1e-4)
    else:  # uniform in [0, 1): mean 1/2, variance 1/12
        expected = ((told - 0.5).square().mean() + 1 / 12).item()
        assert line["erase"] == pytest.approx(0.5 * expected, rel=0.15)
    x, t, noise, which = batch(model, "erasediff keep", DOGS)
    kept = (plain(model, x, t, [DOGS[place] for place in which]) - noise).square().mean()
    assert line["retain"] == pytest.approx(kept.item(), rel=1e-4)


def test_its_settings_go_together(model: Model) -> None:
    request = Request((Concept("cat", instead="car"), Concept("van gogh", kind="style", instead="art")))
    common = {"steps": 2, "retain_pictures": 1}
    assert erase(model, request, **common, balance="cosine", teacher="student", neighbours=1).weights
    assert erase(model, **common, combine="restricted", trains="xattn").weights


@pytest.mark.parametrize("method", ["erasediff", "selective_amnesia", "duge"])
def test_nothing_to_keep_is_refused(method: str, model: Model) -> None:
    everything = (*(Concept(word) for word in ("cat", "dog", "bear", "car")), Concept("neon", kind="style"))
    request = Request((*everything, Concept("van gogh", kind="style")))
    with pytest.raises(InputError, match="there is nothing to keep: give it with --keep"):
        edit_for(model, request, method=method)
