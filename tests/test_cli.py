"""The command line says what it should and calls what it says; what can go wrong is in test_bad_input.py."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import saved
import unlearnkit
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.io.progress import showing
from unlearnkit.methods import METHODS
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.runs.images import draw, neighbours, sheet
from unlearnkit.runs.run import erase
from unlearnkit.schema import Concept, Request
from unlearnkit.settings import describe


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command that must succeed, in an empty folder, and return its stdout."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        told = capsys.readouterr()
        assert stopped.value.code == 0, told
        return told.out

    return run


@pytest.fixture(scope="module")
def known() -> Model:
    return load(saved.folder())


def flat(text: str) -> str:
    return " ".join(text.split())


def test_version_and_help(said):
    assert said("--version").strip() == unlearnkit.__version__
    for command in ("erase", "generate", "methods", "canvas"):
        assert command in said("--help")
        assert "Usage" in said(command, "--help")


def test_methods_are_listed(said):
    listed = flat(said("methods"))
    for method in METHODS.values():
        assert method.name in listed


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_shown_with_every_setting(said, name: str):
    shown = flat(said("methods", name))
    method = METHODS[name]
    assert method.paper in shown
    assert method.summary in shown
    for one in describe(method):
        assert one.name in shown
        assert flat(one.doc) in shown
        assert one.allowed in shown
        assert one.source in shown


def test_a_model_names_its_default_method(said, tmp_path: Path) -> None:
    shutil.copytree(saved.folder(), tmp_path / "own")
    words = ["erase", tmp_path / "own", "--concept", "cat", "--dry-run"]
    assert "runs/esd-cat-0" in flat(said(*words))
    with (tmp_path / "own" / "unlearnkit.toml").open("a") as hints:
        hints.write('\n[erase]\nmethod = "uce"\n')
    assert "runs/uce-cat-0" in flat(said(*words))
    assert "runs/ga-cat-0" in flat(said(*words, "--method", "ga"))


def test_the_parts_have_options_of_their_own(said):
    """They say what ``--set`` says: the same value twice is no contradiction."""
    words = ["erase", saved.folder(), "--concept", "cat", "--method", "duge", "--dry-run"]
    words += ["--set", "memory=0", "--trains", "all"]
    parts = ["--combine", "restricted", "--mask", "dynamic", "--rule", "l1sp", "--rule", "l2sp"]
    told = said(*words, *parts, "--set", "mask=dynamic", "--set", "retain_weight=2")
    for setting in (
        "trains=all",
        "combine=restricted",
        "mask=dynamic",
        "rule=l1sp,l2sp",
        "retain_weight=2.0",
    ):
        assert f"{setting}," in told
    plain = said(*words)
    assert "rule=" not in plain  # DUGE's own, as the line below the settings says
    assert "and the method's defaults" in plain
    assert "rule=none," in said(*words, "--rule", "none")


def test_pictures_are_drawn_by_prompt_and_seed(said, known: Model):
    words = ["generate", saved.folder(), "--prompt", "a cat", "--prompt", "A cat!", "--count", 2, "--seed", 3]
    paths = said(*words, "--out", "one").split()
    assert paths == ["one/a-cat-0-3.png", "one/a-cat-0-4.png", "one/a-cat-1-3.png", "one/a-cat-1-4.png"]
    assert said(*words, "--out", "two") != ""
    for path in map(Path, paths):
        assert path.read_bytes() == (Path("two") / path.name).read_bytes()
    with Image.open(paths[1]) as picture:
        assert json.loads(picture.text["unlearnkit"]) == {"prompt": "a cat", "seed": 4, "edit": None}
        assert picture.tobytes() == known.sample(["a cat"] * 4, [3, 4, 5, 6])[1].tobytes()


def test_an_edit_is_worn_while_drawing(said, known: Model):
    erase(known, "cat", method="uce", erase_weight=100.0).save("cat.safetensors")
    words = ["generate", saved.folder(), "--prompt", "cat"]
    said(*words, "--out", "plain")
    said(*words, "--out", "worn", "--edit", "cat.safetensors")
    plain, worn = (Image.open(Path(folder) / "cat-0.png") for folder in ("plain", "worn"))
    assert plain.tobytes() != worn.tobytes()
    assert json.loads(worn.text["unlearnkit"])["edit"]


def test_neighbours_are_chosen_by_rule(known: Model):
    request = Request((Concept("cat", phrases=("dog",)),), (Concept("neon", "style"), Concept("tree")))
    found = neighbours(known, request, near=2, far=2)
    assert found[:2] == list(request.keep)
    assert {one.name for one in found[2:4]} == {"bear", "car"}
    assert found[4:] == [Concept("van gogh", "style")]
    assert found == neighbours(known, request, near=2, far=2)


@pytest.mark.parametrize(("size", "cell"), [(16, 128), (64, 128), (100, 200), (200, 200), (512, 256)])
def test_a_sheet_shows_every_picture_at_a_readable_size(size: int, cell: int):
    colours = ["red", "green", "blue", "yellow"]
    pictures = [Image.new("RGB", (size, size), colour) for colour in colours]
    page = sheet([("a rather long caption that has to be broken", pictures)] * 2, groups=("before", "after"))
    counts = {pixel: count for count, pixel in page.getcolors(page.width * page.height)}
    for picture in pictures:
        assert counts[picture.getpixel((0, 0))] == 2 * cell * cell


def test_pictures_of_one_prompt_twice_are_one(known: Model, tmp_path: Path):
    assert draw(known, ["cat", "cat"], tmp_path, seeds=[1]) == [tmp_path / "cat-1.png"]


def test_no_picture_takes_the_place_of_another(known: Model, tmp_path: Path):
    with pytest.raises(InputError, match="two of the pictures would have one file name"):
        draw(known, ["a cat", "a cat!", "a cat 0"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_words_for_another_piece_of_work_begin_anew(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 100.0, 500.0, 510.0])
    monkeypatch.setattr("unlearnkit.io.progress.time.monotonic", lambda: next(clock))
    console = Console(file=io.StringIO())
    with showing(console) as tick:
        for done, total in ((27, 54), (54, 54), (1, 101), (2, 101)):
            tick("drawing", done, total)
    assert console.file.getvalue().splitlines()[-1] == "drawing 2 of 101, about 16:30 min left"


def test_progress_is_plain_lines_without_a_terminal():
    page = io.StringIO()
    with showing(Console(file=page), "a title") as tick:
        for done in range(1, 101):
            tick("training", done, 100)
        tick("drawing", 2, 2)
    assert page.getvalue().splitlines() == [
        "a title",
        "training 1 of 100",
        "training 100 of 100",
        "drawing 2 of 2",
    ]


def test_progress_is_a_bar_on_a_terminal():
    page = io.StringIO()
    with showing(Console(file=page, force_terminal=True, width=80)) as tick:
        tick("training", 5, 10)
    assert "5/10" in page.getvalue()


def test_a_job_that_never_begins_says_nothing():
    page = io.StringIO()
    with showing(Console(file=page), "a title"):
        pass
    assert page.getvalue() == ""
