"""Two processes that share the rows of every pass find what one process finds."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from processes import two
from quick import quick
from test_contract import REQUEST

import kinds
import saved
from unlearnkit.io import processes
from unlearnkit.methods import METHODS, edit_for
from unlearnkit.model.edit import Edit
from unlearnkit.model.hints import Hints
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.training.job import Job
from unlearnkit.training.settings import Training

BATCH = 3  # of which the second process has one row of its own
# of the length of the change: sums of floats in another order make about 1e-6, Adam enlarges them
TOLERANCE = 1e-3
WIDER = {
    "salun": 2e-2,  # of two weights that matter alike, its mask may open the other one
    "aegis": 2e-3,  # six of 64,796 weights have a gradient of nearly zero, by which Adam divides
}
RUNS = {name: {"batch": BATCH} for name in METHODS if issubclass(METHODS[name], Training)} | {
    "esd": {"batch": BATCH, "retain_weight": 1.0, "retain_pictures": 2, "combine": "restricted"},
    "ca": {"batch": BATCH, "retain_weight": 1.0, "combine": "pcgrad", "rule": ("l2sp",)},
    "graddiff": {"batch": BATCH, "trains": "lora", "combine": "preserving-tensor"},
}

KINDS = {title: f"kind-{place}" for place, title in enumerate(kinds.KINDS)}


def make(method: str, folder: Path) -> Edit:
    settings = quick(method, 2, **RUNS[method])
    job = Job(folder=folder, checkpoint_every=1)
    return edit_for(
        load(saved.folder(), device="cpu"), REQUEST, method=method, settings=settings, seed=3, job=job
    )


def make_of(title: str, folder: Path) -> Edit:
    """ESD on the family with this title."""
    words = folder / f"words-{os.environ.get('RANK', 'alone')}"
    model = Model(kinds.pipeline(title, words), hints=Hints(steps=2, size=16))
    settings = {"batch": BATCH, "steps": 2, "lr": 1e-3, "start_steps": 2}
    return edit_for(model, REQUEST, method="esd", settings=settings, seed=3, job=Job(folder=folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left an edit of each method."""
    folder = tmp_path_factory.mktemp("two")

    def run() -> None:
        for method in RUNS:
            make(method, folder / method)
        for title in KINDS:
            make_of(title, folder / KINDS[title])

    two(run, folder)
    return folder


@pytest.mark.parametrize("method", RUNS)
def test_11_two_processes_give_the_edit_of_one(method: str, folder: Path, tmp_path: Path) -> None:
    one, two = make(method, tmp_path), Edit.load(folder / method / "edit.safetensors")
    assert distance(one, two, load(saved.folder(), device="cpu")) <= WIDER.get(method, TOLERANCE)


@pytest.mark.parametrize("title", KINDS)
def test_11_so_they_do_on_every_family(title: str, folder: Path, tmp_path: Path) -> None:
    one, two = make_of(title, tmp_path), Edit.load(folder / KINDS[title] / "edit.safetensors")
    base = Model(kinds.pipeline(title, tmp_path), hints=Hints(size=16))
    assert distance(one, two, base) <= TOLERANCE


def distance(one: Edit, two: Edit, model: Model) -> float:
    """How far the edits are apart, as a share of the way that the first one goes."""
    base = model.values(one.weights)
    assert one.weights.keys() == two.weights.keys()
    way, apart = 0.0, 0.0
    for name, weight in one.weights.items():
        way += (weight - base[name].detach()).square().sum().item()
        apart += (weight - two.weights[name]).square().sum().item()
    assert way > 0
    return (apart / way) ** 0.5


def test_a_run_folder_is_written_by_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["erase", str(saved.folder()), "--concept", "cat", "--method", "ca", "--out", "run"]
    words += ["--set", "steps=2", "--set", "pictures=2", "--device", "cpu", "--pictures", "1"]
    monkeypatch.chdir(tmp_path)

    def run() -> None:
        for name in [name for name in sys.modules if name.startswith("unlearnkit.cli")]:
            del sys.modules[name]  # which process prints is decided when they are imported
        import_module("unlearnkit.cli").main(words)

    (said, _), (nothing, _) = two(run, tmp_path)
    assert "erased, edit" in said
    assert nothing == ""
    for name in ("recipe.toml", "log.jsonl", "edit.safetensors", "pipeline", "grid.png", "run.json"):
        assert (tmp_path / "run" / name).exists()


def test_rows_are_divided_and_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rows, expected in (
        (5, [[0, 1], [2, 3], [4, 4], [4, 4]]),
        (2, [[0], [1], [1], [1]]),
        (0, [[], [], [], []]),
        (8, [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ):
        for index, own in enumerate(expected):
            monkeypatch.setenv("RANK", str(index))
            assert processes.own_rows(rows).tolist() == own


def test_alone_nothing_is_exchanged() -> None:
    assert (processes.count(), processes.index(), processes.first()) == (1, 0, True)
    x = torch.arange(3.0)
    assert torch.equal(processes.by_rows(torch.exp, x), x.exp())
    assert processes.gather_rows(x, 3) is x
    assert torch.equal(processes.sum_gradients({"x": x})["x"], x)
    assert processes.broadcast(2.5) == 2.5
