"""What users do first, in a few seconds: scripts/test-oldest runs it with the oldest versions that are promised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

import kinds
from unlearnkit.methods import METHODS, edit_for
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request

REQUEST = Request((Concept("cat", instead="bear"),), keep=(Concept("dog"),))


def test_the_canvas_opens_alike_each_time() -> None:
    first, second = (load("canvas").encode(["a cat", ""]) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("title", [title for title in kinds.KINDS if "class" not in title])
def test_every_family_erases_saves_and_opens(title: str, words: Path, tmp_path: Path) -> None:
    model = Model(kinds.pipeline(title, words))
    method = "uce" if "text" in model.family.PARTS else "esd"
    few = {} if method == "uce" else {"steps": 1, "lr": 1e-2, "batch": 1, "start_steps": 2}
    edit = edit_for(model, REQUEST, method=method, settings=few)
    model.save(tmp_path / "saved", edit=edit)
    plain = DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert type(plain) is type(model.pipe)
    again = load(tmp_path / "saved").weights("all")
    assert all(torch.equal(again[name], value) for name, value in edit.weights.items())


def test_every_method_is_there() -> None:
    assert {"duge", "rgd", "doco", "sculpting", "esd", "uce", "speed"} <= set(METHODS)
