"""How a model is drawn: steps that its scheduler can make, states of its own text encoder, and notes beforehand."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import kinds
import saved
import tiny
from tiny import HINTS
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.model.load import note_of
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import denoise

SCHEDULERS = [
    *("PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("UniPCMultistepScheduler", "LCMScheduler"),
]


def few(pipe: Any) -> Any:
    """The pipeline as of a model that was trained for twelve times, so that all of them are drawn in no time."""
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, num_train_timesteps=12)
    return pipe


def bounds(model: Model) -> tuple[int, int]:
    """The steps that the message offers."""
    with pytest.raises(InputError, match=r"steps 5000 is out of range for \w+: use \d+ to \d+$") as caught:
        model.sample(["cat"], [0], steps=5000)
    low, high = str(caught.value).rpartition("use ")[2].split(" to ")
    return int(low), int(high)


def drawn_at_the_bounds(model: Model) -> tuple[int, int]:
    low, high = bounds(model)
    for steps in (low, high):
        assert len(model.sample(["cat"], [0], steps=steps)) == 1
    for steps in (low - 1, high + 1, 0, -1):
        with pytest.raises(InputError, match="is out of range for"):
            model.sample(["cat"], [0], steps=steps)
    return low, high


@pytest.mark.parametrize("title", kinds.KINDS)
def test_every_family_draws_in_the_steps_that_its_message_offers(title: str, words: Path):
    model = Model(few(kinds.pipeline(title, words)), hints=replace(HINTS, size=16))
    low, high = drawn_at_the_bounds(model)
    assert low == 1
    assert high in (11, 12)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_draws_in_the_steps_that_its_message_offers(name: str, spacing: str, words: Path):
    pipe = tiny.pipeline(words)
    changes = {"timestep_spacing": spacing, "num_train_timesteps": 12, "original_inference_steps": 6}
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **changes)
    drawn_at_the_bounds(Model(pipe, hints=HINTS))


def test_a_thousand_steps_of_a_real_schedule_are_refused_or_drawn(model: Model):
    assert bounds(model) == (1, 999)  # its offset of 1 would read the time 1000, of times 0 to 999
    noise, states = torch.zeros(1, *model.shape), model.encode(["cat"])
    with pytest.raises(InputError, match="steps 1000 is out of range"):
        denoise(model, noise, states, states, steps=1000, guidance=1.0, stop=1)


@pytest.mark.parametrize(
    ("prompts", "numbers", "why"),
    [
        ("a cat", [0], "prompts got 'a cat': give a list"),
        (["a cat"], 0, "seeds got 0: give a list"),
        (["a cat"], ["x"], "seed 'x' is no whole number"),
        (["a cat"], [-1], "seed -1 is out of range"),
        (["a cat"], [0, 1], "1 prompts and 2 seeds"),
    ],
)
def test_wrong_prompts_and_seeds_are_one_line(model: Model, prompts: Any, numbers: Any, why: str):
    with pytest.raises(InputError, match=why):
        model.sample(prompts, numbers)


def test_states_are_of_the_text_encoder_as_it_is_now(model: Model):
    before, encoder = model.encode(["cat"]), model.pipe.text_encoder
    assert model.encode(["cat"]).equal(before)
    other = model.with_hints(replace(HINTS, steps=9))
    with torch.no_grad():
        next(encoder.parameters()).mul_(2)
    changed = model.encode(["cat"])
    assert not changed.equal(before)
    assert other.encode(["cat"]).equal(changed)
    encoder.load_state_dict({name: value / 2 for name, value in encoder.state_dict().items()})
    assert not model.encode(["cat"]).equal(changed)
    model.pipe.text_encoder = tiny.pipeline(Path(model.pipe.tokenizer.name_or_path), seed=3).text_encoder
    fresh = Model(model.pipe, hints=HINTS).encode(["cat"])
    assert model.encode(["cat"]).equal(fresh)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = Path(shutil.copytree(saved.folder(), tmp_path / "model"))
    (made / "unlearnkit.toml").unlink()
    return made


@pytest.mark.parametrize(
    "change",
    [{"_class_name": "LCMScheduler"}, {"timestep_spacing": "trailing"}, {"_class_name": "TCDScheduler"}],
    ids=str,
)
def test_a_distilled_model_without_hints_is_named_beforehand(
    change: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder.parent)
    assert note_of(folder) == note_of("canvas") == note_of("nowhere") == ""
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    note = note_of(folder)
    assert "it is drawn in 50 steps with guidance 7.5" in note
    assert "write them into its unlearnkit.toml: [sampling] steps = 4, guidance = 1.0" in note
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["erase", "model", "--concept", "cat", "--method", "uce", "--dry-run"])
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("note: 'model' looks distilled")
    (folder / "unlearnkit.toml").write_text("[sampling]\nsteps = 4\nguidance = 1.0\n")
    assert note_of(folder) == ""


def test_a_list_of_names_in_one_concept_is_named_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["erase", str(saved.folder()), "--concept", "cat, dog", "--method", "uce", "--dry-run"])
    said = " ".join(capsys.readouterr().err.split())
    assert stopped.value.code == 0
    assert "note: 'cat, dog' is one concept: for several concepts repeat --concept" in said
