"""The canvas: the world's data, what the package ships, and its check."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from hypothesis import given
from hypothesis import strategies as some

from ship import sums
from unlearnkit.canvas import WEIGHTS, check, world
from unlearnkit.canvas.check import accuracy, cells
from unlearnkit.canvas.classifier import Prediction, _choice
from unlearnkit.canvas.held_out import held_out_classifier
from unlearnkit.model.hints import FILE
from unlearnkit.model.load import load
from unlearnkit.model.places import CANVAS

shipped = pytest.mark.skipif(not (WEIGHTS / "SHA256SUMS").is_file(), reason="no weights are shipped yet")


def test_the_world_is_large_enough() -> None:
    assert len(world.OBJECTS) >= 24
    assert len({thing.within for thing in world.OBJECTS.values()}) >= 5
    assert len(world.STYLES) >= 10
    assert len(world.BACKGROUNDS) >= 8


def test_captions_by_hand() -> None:
    assert world.prompt("apple") == "a picture of an apple"
    assert world.prompt("cat", "neon") == "a cat in neon style"
    assert world.held_out_captions("owl", "pop art") == [
        "pop art style, an owl",
        "here is an owl in the style of pop art",
    ]


@given(some.integers(1, 4))
def test_a_cells_seed_depends_on_the_cell_alone(replicates: int) -> None:
    assert set(cells(1, objects=["cat"], styles=["neon"])) <= set(cells(replicates))
    assert len({cell.seed for cell in cells(replicates)}) == 240 * replicates


def test_shares_by_hand() -> None:
    wanted = cells(2, objects=["cat", "dog"], styles=["neon"])
    seen = [
        Prediction(name, style, 1, 1)
        for name, style in [("cat", "neon"), ("dog", "neon"), ("dog", "plain"), ("dog", "neon")]
    ]
    found = accuracy(wanted, seen)
    assert (found["object"], found["style"], found["by object"]) == (75.0, 75.0, {"cat": 50.0, "dog": 100.0})


@shipped
def test_the_shipped_weights_are_those_of_the_sums() -> None:
    lines = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    assert dict(reversed(line.split("  ", 1)) for line in lines) == sums(WEIGHTS)


@shipped
def test_the_shipped_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 55e6


@shipped
def test_the_shipped_relative_is_told_an_object_and_borrows_the_autoencoder() -> None:
    model = load("canvas-classes")
    assert model.classes == tuple(sorted(world.OBJECTS))
    assert model.hints.objects == tuple(world.OBJECTS)
    assert not (WEIGHTS / "classes" / "vae").exists()
    assert model.sample(["frog"], [0])[0].size == (64, 64)


@shipped
def test_the_shipped_flow_draws_what_it_is_told_and_so_it_does_in_plain_diffusers(tmp_path: Path) -> None:
    model = load("canvas-flow")
    names = ("frog", "car", "pizza", "guitar")
    drawn = model.sample([world.prompt(name, "plain") for name in names], range(4), batch=1)
    assert [seen.object for seen in held_out_classifier().classify(drawn)] == list(names)
    model.save(tmp_path / "flow")
    pipe = StableDiffusion3Pipeline.from_pretrained(tmp_path / "flow", text_encoder_3=None, tokenizer_3=None)
    how = {"guidance_scale": model.hints.guidance, "max_sequence_length": model.hints.tokens}
    seed = torch.Generator().manual_seed(1)
    told = world.prompt("car", "plain")
    again = pipe(told, num_inference_steps=model.hints.steps, generator=seed, **how).images[0]
    assert again.tobytes() == drawn[1].tobytes()


def test_something_known_is_named_only_when_it_is_sure_enough() -> None:
    names = ("cat", "dog", world.NOTHING)
    found = [_choice(torch.tensor(p), names) for p in ([0.3, 0.34, 0.36], [0.3, 0.36, 0.34], [0.4, 0.1, 0.5])]
    assert found == [2, 1, 0]
    assert (
        _choice(torch.tensor([0.2, 0.3]), names[:2]) == 1
    )  # an eye without the class always names something


@shipped
def test_the_check_names_what_the_canvas_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "few_cells", lambda: cells(1, objects=["frog"], styles=["plain"]))
    facts = check.check(tmp_path / "check", quick=True)
    assert facts["canvas"]["judge"]["object"] == facts["canvas"]["judge"]["style"] == 100.0
    assert (tmp_path / "check" / "check.json").is_file() and (tmp_path / "check" / "canvas.png").is_file()


def test_a_quick_check_has_every_object_and_every_style() -> None:
    assert {c.object for c in check.few_cells()} == set(world.OBJECTS)
    assert {c.style for c in check.few_cells()} == set(world.STYLES)


def test_a_copy_of_the_canvas_is_known_by_its_hints(tmp_path: Path) -> None:
    shutil.copy(CANVAS / FILE, tmp_path)
    assert world.of_canvas(tmp_path) and world.of_canvas("canvas") and world.of_canvas("canvas-classes")
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace('"owl", ', ""))
    assert not world.of_canvas(tmp_path) and not world.of_canvas("org/model")
