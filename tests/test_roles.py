"""Whatever sets a setting of a method asks for its role: a name alone means nothing to anybody."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import kinds
from unlearnkit import chain
from unlearnkit.chain.project import EDITS
from unlearnkit.methods import DUGE, METHODS, UCE, SculptingMemory, resolve
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.settings import setting, with_role
from unlearnkit.training.closed_form import ClosedForm
from unlearnkit.training.job import Run

REQUEST = Request((Concept("cat"),), keep=(Concept("dog"),))


@dataclass(frozen=True)
class Toy(ClosedForm):
    """A method whose settings have names that other methods' roles have, and no roles."""

    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy"
    paper: ClassVar[str] = "none"
    summary: ClassVar[str] = "makes every key and value a little larger"

    erase: float = setting(0.5, "a weight")
    output: float = setting(0.25, "a weight")
    attention: float = setting(0.5, "a weight")
    attention_weight: float = setting(0.5, "a weight")
    output_weight: float = setting(0.25, "a weight")
    memory: int = setting(7, "a count")
    neighbours: int = setting(3, "a count")
    earlier: tuple[str, ...] = setting((), "some names")
    trains: str = setting("everything", "a part")
    checkpointing: bool = setting(False, "a switch")
    diverse: bool = setting(True, "a switch")

    def solve(self, run: Run) -> dict[str, Tensor]:
        scale = 1.01 + len(run.request.keep) / 100
        return {name: scale * weight.detach().float() for name, weight in run.model.weights("text").items()}


STOCK: dict[str, Any] = dataclasses.asdict(Toy())


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "toy", Toy)


@pytest.mark.parametrize(
    "kind", ["Stable Diffusion 3/3.5", "PixArt", "class-conditional DiT", "Stable Diffusion XL"]
)
def test_a_family_leaves_settings_without_a_role_alone(kind: str, words: Path) -> None:
    title = next(title for title in kinds.KINDS if title.startswith(kind))
    model = Model(kinds.pipeline(title, words))
    assert dataclasses.asdict(resolve(model, REQUEST, "toy", {})) == STOCK


def test_a_chain_leaves_settings_without_a_role_alone(model: Model, tmp_path: Path) -> None:
    chain.init(tmp_path / "p", model, method="toy", guards={"bank": 4, "replay": 0}, pictures=0)
    for name in ("cat", "car"):
        entry = chain.add(tmp_path / "p", name, model=model)
        edit = Edit.load(tmp_path / "p" / EDITS / f"{entry.facts['edit']['hash']}.safetensors")
        assert edit.facts["settings"] == json.loads(json.dumps(STOCK))
    chain.init(tmp_path / "q", model, method="toy", guards={"bank": 0, "replay": 1}, pictures=0)
    chain.add(tmp_path / "q", "cat", model=model)
    chain.add(tmp_path / "q", "car", model=model)
    edit = chain.edit(tmp_path / "q", model=model)
    name, weight = next(iter(edit.weights.items()))
    once, twice = 1.01, 1.02  # the second request keeps the first's concept, and no word besides
    torch.testing.assert_close(weight, twice * once * model.weights("text")[name].detach(), rtol=1e-5, atol=0)


def test_the_methods_declare_the_roles_that_others_ask_for() -> None:
    assert with_role(DUGE, "memory") == ("memory",)
    assert with_role(DUGE, "attention") and with_role(DUGE, "output")
    assert with_role(UCE, "neighbours") == ("neighbours",)
    assert with_role(SculptingMemory, "earlier") == ("earlier",)
    assert with_role(DUGE, "trains") == ("trains",) and not with_role(UCE, "trains")
