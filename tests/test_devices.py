"""On a device that is not the CPU: nothing mixes tensors of both, and what comes out is what the CPU gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import PLACE, elsewhere
from quick import quick
from test_contract import REQUEST, erase
from test_processes import distance

import kinds
from tiny import HINTS
from unlearnkit import chain
from unlearnkit.families import FAMILIES
from unlearnkit.methods import METHODS, edit_for
from unlearnkit.model.model import Model

CLOSE = 2e-3  # kernels differ, and Adam's first steps go by a gradient's sign: a share of the edit's length
CHOSEN = {"salun": 2e-2, "sculpting": 2e-2}  # a mask chooses between weights that matter alike
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "low-rank updates": ("esd", {"trains": "lora", "rank": 2}),
    "restricted gradient, dynamic mask": (
        "ca",
        {"retain_weight": 1.0, "combine": "restricted", "mask": "dynamic"},
    ),
    "preserving projection, saliency": (
        "ca",
        {"retain_weight": 1.0, "combine": "preserving", "mask": "saliency"},
    ),
    "PCGrad, L1-SP": ("ca", {"retain_weight": 1.0, "combine": "pcgrad", "rule": ("l1sp",)}),
    "adversary": ("ca", {"adversary": "prefix", "adversary_steps": 2}),
    "update's projection": ("ca", {"rule": ("project",), "protect": 2}),
}


def there(model: Model) -> Model:
    """The model moved to the other device."""
    model.pipe.to(PLACE)
    return Model(model.pipe, source="tiny", hints=model.hints)


def test_the_other_device_mixes_with_nothing() -> None:
    with elsewhere():
        one = torch.ones(2).to(PLACE)
        found = (one, one + 1, one * torch.tensor(2.0), one[torch.tensor([0])])
        assert {tensor.device.type for tensor in found} == {PLACE.type}
        assert (one.cpu() + torch.ones(2)).tolist() == [2.0, 2.0]
        with pytest.raises(RuntimeError, match="two devices"):
            one + torch.ones(2)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_edit_there(method: str, make: Callable[..., Model]) -> None:
    settings = quick(method, 2)
    settings |= {"mask_every": 1} if "mask_every" in settings else {}
    wanted = edit_for(make(), REQUEST, method=method, settings=settings)
    with elsewhere():
        found = edit_for(there(make()), REQUEST, method=method, settings=settings)
        assert {weight.device.type for weight in found.weights.values()} <= {"cpu"}
    for one, other in zip(wanted.hooks, found.hooks, strict=True):
        torch.testing.assert_close(one.tensors, other.tensors)
    if wanted.weights:
        assert distance(wanted, found, make()) <= CHOSEN.get(method, CLOSE)


@pytest.mark.parametrize("name", PARTS)
def test_so_does_every_part(name: str, make: Callable[..., Model]) -> None:
    method, changes = PARTS[name]
    changes = changes | ({"mask_warmup": 2, "mask_every": 2} if "mask" in changes else {})
    wanted = erase(make(), method, **changes)
    with elsewhere():
        found = erase(there(make()), method, **changes)
    assert distance(wanted, found, make()) <= (2e-2 if "mask" in changes else CLOSE)


@pytest.mark.parametrize("title", [family.TITLE for family in FAMILIES])
def test_every_family_draws_and_erases_there(title: str, words: Path) -> None:
    def opened() -> Model:
        return Model(kinds.pipeline(title, words), source="tiny", hints=replace(HINTS, size=16))

    settings: dict[str, Any] = {"steps": 2, "lr": 1e-3, "batch": 2, "start_steps": 3}
    if PLACE.type != "cuda":  # torch asks a device's own module for random states before it recomputes
        settings["checkpointing"] = False
    wanted = edit_for(opened(), REQUEST, method="esd", settings=settings)
    here = opened().sample(["cat"], [0])[0]
    with elsewhere():
        away = there(opened())
        found = edit_for(away, REQUEST, method="esd", settings=settings)
        with away.wearing(found):
            assert away.latents(away.sample(["cat", "dog"], [0, 1])).device.type == PLACE.type
        drawn = away.sample(["cat"], [0])[0]
    if title != "class-conditional U-Net":  # some weights of this toy have no gradient but rounding
        assert distance(wanted, found, opened()) <= CLOSE
    apart = [abs(a - b) for a, b in zip(here.tobytes(), drawn.tobytes(), strict=True)]
    assert max(apart) <= 1


def test_a_chain_with_every_guard_runs_there(make: Callable[..., Model], tmp_path: Path) -> None:
    guards = {"bank": 8, "replay": 2, "project": 1, "free": 0.0}
    settings = {"steps": 2, "lr": 1e-3, "batch": 2, "start_steps": 2, "trains": "xattn-kv"}
    with elsewhere():
        model = there(make())
        chain.init(tmp_path / "chain", model, settings=settings, guards=guards, pictures=1)
        for name in ("cat", "car"):
            chain.add(tmp_path / "chain", name, model=model)
        assert [line.concept for line in chain.status(tmp_path / "chain").lines] == ["cat", "car"]
