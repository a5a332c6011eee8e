"""The run folder: complete, written in the promised order, repeatable, resumable."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from processes import killed

import saved
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.io.files import entries
from unlearnkit.model import restore
from unlearnkit.model.edit import Edit
from unlearnkit.model.hints import Hints
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.runs.estimate import estimate
from unlearnkit.runs.names import default_folder
from unlearnkit.runs.recipes import load_recipe
from unlearnkit.runs.requests import request_for
from unlearnkit.runs.run import erase, run_recipe
from unlearnkit.schema import Concept, Recipe, Request
from unlearnkit.training.state import CheckpointTimer

CAT = Request((Concept("cat"),))
SHORT = {"steps": 3, "start_steps": 2, "lr": 1e-3}
ORDER = ["recipe.toml", "log.jsonl", "edit.safetensors", "pipeline", "grid.png", "run.json"]


@pytest.fixture(scope="module")
def known() -> Model:
    return load(saved.folder())


def recipe(method: str = "esd", **changes: object) -> Recipe:
    return Recipe(str(saved.folder()), method, CAT, {**(SHORT if method == "esd" else {}), **changes}, seed=5)


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_a_run_folder_has_everything(known: Model, tmp_path: Path):
    seen: list[tuple[str, int, int, list[str]]] = []

    def tick(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total, sorted(path.name for path in tmp_path.joinpath("run").iterdir())))

    edit = run_recipe(recipe(), tmp_path / "run", model=known, pictures=2, tick=tick)

    assert [path.name for path in entries(tmp_path / "run")] == sorted(ORDER)
    assert "recipe.toml" in seen[0][3], "the recipe is there before any work is done"
    assert "edit.safetensors" not in seen[0][3]
    assert [(stage, done) for stage, done, _, _ in seen if stage == "training"] == [
        ("training", 1),
        ("training", 2),
        ("training", 3),
    ]
    assert seen[-1][0] == "drawing"
    assert seen[-1][1] == seen[-1][2] == 2 * 2 * 7, (
        "cat, the four other objects and two styles, two seeds, both sides"
    )
    written = load_recipe(tmp_path / "run" / "recipe.toml")
    assert written.settings.items() >= {"trains": "not-xattn", "eta": 1.0, **SHORT}.items()
    assert Edit.load(tmp_path / "run" / "edit.safetensors").hash() == edit.hash()
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3]
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["edit"], facts["base"]) == (edit.hash(), known.fingerprint())
    with Image.open(tmp_path / "run" / "grid.png") as grid:
        assert grid.width > 2 * 2 * 128
        assert json.loads(grid.text["unlearnkit"])["edit"] == edit.hash()


def test_the_saved_pipeline_draws_what_the_edited_model_draws(known: Model, tmp_path: Path):
    edit = run_recipe(recipe(), tmp_path / "run", model=known, pictures=0)
    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    plain.set_progress_bar_config(disable=True)
    drawn = plain(
        "a cat", num_inference_steps=2, guidance_scale=2.0, generator=torch.Generator().manual_seed(7)
    ).images[0]
    with known.wearing(edit):
        assert drawn.tobytes() == known.sample(["a cat"], [7])[0].tobytes()


def test_the_whole_pipeline_may_be_left_out_and_added(
    known: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words = [
        "erase",
        saved.folder(),
        "--concept",
        "cat",
        "--method",
        "uce",
        "--pictures",
        "1",
        "--out",
        "run",
    ]
    needed = [estimate(known, recipe("uce"), pipeline=whole).disk for whole in (True, False)]
    assert needed[0] - needed[1] == sum(
        held.nbytes
        for network in restore.networks(known.pipe)
        for held in (*network.parameters(), *network.buffers())
    )
    assert command(*words, "--no-pipeline", "--dry-run") == 0
    assert command(*words, "--no-pipeline") == 0
    assert {path.name for path in entries(Path("run"))} == set(ORDER) - {"pipeline", "log.jsonl"}
    facts, grid = json.loads(Path("run/run.json").read_text()), Path("run/grid.png").read_bytes()
    capsys.readouterr()
    assert command("erase", "--resume", "--no-pipeline", "--out", "run") == 0
    assert "is finished already" in capsys.readouterr().out
    assert command("erase", "--resume", "--out", "run") == 0
    assert "run/pipeline  the whole model" in capsys.readouterr().out
    assert StableDiffusionPipeline.from_pretrained("run/pipeline").unet is not None
    now = json.loads(Path("run/run.json").read_text())
    assert now["files"].items() > facts["files"].items(), "the pipeline's files are listed, too"
    assert [now[name] for name in ("edit", "seconds", "finished")] == [
        facts[name] for name in ("edit", "seconds", "finished")
    ]
    assert Path("run/grid.png").read_bytes() == grid


@pytest.mark.parametrize("method", ["esd", "uce"])
def test_the_same_recipe_gives_the_same_edit(known: Model, tmp_path: Path, method: str):
    before = known.fingerprint()
    first = run_recipe(recipe(method), tmp_path / "first", model=known, pictures=0)
    again = run_recipe(load_recipe(tmp_path / "first" / "recipe.toml"), tmp_path / "again", pictures=0)
    settings = SHORT if method == "esd" else {}
    direct = erase(known, "cat", method=method, seed=5, **settings)
    filed = erase(known, "cat", method=method, seed=5, out=tmp_path / "filed", **settings)
    assert first.hash() == again.hash() == direct.hash() == filed.hash()
    assert known.fingerprint() == before
    assert (tmp_path / "filed" / "pipeline").is_dir()


@pytest.mark.parametrize("stage", ["training", "drawing"])
def test_an_interrupted_run_says_how_to_go_on_and_does(
    known: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
):
    monkeypatch.chdir(tmp_path)
    words = [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]
    words = ["erase", saved.folder(), "--concept", "cat", "--seed", 5, *words]

    def interrupt(told: str, done: int, total: int) -> None:
        if told == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe(), tmp_path / "run", model=known, tick=interrupt)
    with monkeypatch.context() as patch:
        patch.setattr("unlearnkit.io.progress._lines", lambda console: interrupt)
        assert command(*words, "--out", "other") == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "stopped; continue with: unlearnkit erase --resume --out other"
    assert command(*said.split()[4:]) == 0
    assert command("erase", "--resume", "--out", "run") == 0
    whole = erase(known, "cat", seed=5, **SHORT)
    for folder in ("run", "other"):
        assert [path.name for path in entries(tmp_path / folder)] == sorted(ORDER)
        assert Edit.load(tmp_path / folder / "edit.safetensors").hash() == whole.hash()
    capsys.readouterr()
    assert command("erase", "--resume", "--out", "run") == 0
    assert "finished already" in capsys.readouterr().out


def test_a_killed_process_goes_on_to_the_same_edit(
    known: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["erase", saved.folder(), "--concept", "cat", "--out", tmp_path / "run"]
    words += ["--set", "steps=9", "--set", "start_steps=4", "--pictures", 0]

    def die(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("training", 6):
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr("unlearnkit.io.progress._lines", lambda console: die)
        patch.setattr(CheckpointTimer, "due", lambda self, done: True)
        killed(lambda: command(*words))
    assert (tmp_path / "run" / "log.jsonl").read_text().count("\n") > 4
    assert not (tmp_path / "run" / "run.json").exists()
    assert command("erase", "--resume", "--out", tmp_path / "run", "--pictures", 0) == 0
    whole = erase(known, "cat", steps=9, start_steps=4)
    assert Edit.load(tmp_path / "run" / "edit.safetensors").hash() == whole.hash()


@pytest.mark.parametrize("method", ["esd", "uce"])
def test_a_dry_run_tells_what_it_takes_and_writes_nothing(
    known: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
):
    monkeypatch.chdir(tmp_path)
    flags = {name: weight.requires_grad for name, weight in known.weights().items()}
    before = known.fingerprint()
    told = estimate(known, recipe(method))
    assert {name: weight.requires_grad for name, weight in known.weights().items()} == flags
    assert known.fingerprint() == before
    edit = run_recipe(recipe(method), tmp_path / "run", model=known, pictures=0)
    assert set(edit.weights) <= set(known.weights())
    assert sum(weight.numel() for weight in edit.weights.values()) <= told.plan.weights
    used = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert used <= told.disk
    assert told.drawing > 0
    assert (told.erasing > 0) == (method == "esd")
    if method == "uce":  # which takes most where pictures are decoded
        without = estimate(known, recipe(method), pictures=0)
        assert told.memory > without.memory
        assert "grid.png" in dict(told.lines())["time"]
        assert "grid.png" not in dict(without.lines())["time"]

    entries = sorted(tmp_path.rglob("*"))
    assert command("erase", saved.folder(), "--concept", "cat", "--method", method, "--dry-run") == 0
    said = capsys.readouterr()
    assert "nothing was written" in said.out
    assert f"runs/{method}-cat-0" in said.out
    assert said.err == ""
    assert sorted(tmp_path.rglob("*")) == entries


def test_requests_from_names():
    made = request_for(["cat", Concept("neon", "style")], keep=["dog"])
    assert made == Request((Concept("cat"), Concept("neon", "style")), (Concept("dog"),))
    one = request_for("van gogh", kind="style", phrases=["starry night"], instead="monet")
    assert one.erase == (Concept("van gogh", "style", ("starry night",), "monet"),)
    assert request_for(CAT) is CAT
    mixed = request_for("cat", keep=["neon", "dog", "unheard of"], known=Hints(styles=("Neon",)))
    assert mixed.keep == (Concept("neon", "style"), Concept("dog"), Concept("unheard of"))
    for wrong in ({"instead": "dog"}, {"phrases": ["kitten"]}):
        with pytest.raises(InputError, match="single concept"):
            request_for(Concept("cat"), **wrong)
    with pytest.raises(InputError, match="has its own phrases"):
        request_for(CAT, keep=["dog"])


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (("cat",), "esd-cat-5"),
        (("Van Gogh", "../../etc"), "esd-van-gogh-etc-5"),
        (("猫",), "esd-unnamed-a810bf-5"),
        (("x" * 500,), f"esd-{'x' * 60}-5"),
    ],
)
def test_the_default_folder_is_a_plain_name(names: tuple[str, ...], folder: str):
    made = Recipe("canvas", "esd", Request(tuple(Concept(name) for name in names)), seed=5)
    assert default_folder(made) == Path("runs") / folder
