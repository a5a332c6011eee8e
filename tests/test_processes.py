"""Two processes that share the rows of every pass find what one process finds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
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
CHOSEN = {"salun": 2e-2}  # of two weights that matter alike, its mask may open the other one
RUNS = {name: {"batch": BATCH} for name in METHODS if issubclass(METHODS[name], Training)} | {
    "esd": {"batch": BATCH, "retain_weight": 1.0, "retain_pictures": 4, "combine": "restricted"},
    "ca": {"batch": BATCH, "retain_weight": 1.0, "combine": "pcgrad", "rule": ("l2sp",)},
    "graddiff": {"batch": BATCH, "trains": "lora", "combine": "preserving-tensor"},
}

KINDS = {title: f"kind-{place}" for place, title in enumerate(kinds.KINDS)}


def start(words: list[str], folder: Path) -> list[subprocess.Popen[str]]:
    """Two processes as ``accelerate launch`` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = []
    for rank in ("0", "1"):
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        env |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}",
        }
        env |= {"UNLEARNKIT_CACHE": str(folder / "cache")}
        both.append(
            subprocess.Popen(
                [sys.executable, *words],
                env=os.environ | env,
                cwd=folder,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    return both


TWO = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from test_processes import KINDS, RUNS, make, make_of
for method in RUNS:
    make(method, Path(sys.argv[1]) / method)
for title in KINDS:
    make_of(title, Path(sys.argv[1]) / KINDS[title])
"""


def make(method: str, folder: Path) -> Edit:
    settings = quick(method, **RUNS[method])
    job = Job(folder=folder, checkpoint_every=1)
    return edit_for(
        load(saved.folder(), device="cpu"), REQUEST, method=method, settings=settings, seed=3, job=job
    )


def make_of(title: str, folder: Path) -> Edit:
    """ESD on the family with this title."""
    words = folder / f"words-{os.environ.get('RANK', 'alone')}"
    model = Model(kinds.pipeline(title, words), hints=Hints(steps=2, size=16))
    settings = {"batch": BATCH, "steps": 3, "lr": 1e-3, "start_steps": 3}
    return edit_for(model, REQUEST, method="esd", settings=settings, seed=3, job=Job(folder=folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left an edit of each method."""
    folder = tmp_path_factory.mktemp("two")
    both = start(["-c", TWO, str(folder)], folder)
    told = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    return folder


@pytest.mark.parametrize("method", RUNS)
def test_11_two_processes_give_the_edit_of_one(method: str, folder: Path, tmp_path: Path) -> None:
    one, two = make(method, tmp_path), Edit.load(folder / method / "edit.safetensors")
    assert distance(one, two, load(saved.folder(), device="cpu")) <= CHOSEN.get(method, TOLERANCE)


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


def test_a_run_folder_is_written_by_one_of_them(tmp_path: Path) -> None:
    words = ["erase", str(saved.folder()), "--concept", "cat", "--method", "ca", "--out", "run"]
    words += ["--set", "steps=2", "--set", "pictures=2", "--device", "cpu", "--pictures", "1"]
    both = start(["-m", "unlearnkit", *words], tmp_path)
    (said, told), (nothing, silence) = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], (told, silence)
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
