"""A byte flipped, and a half cut off, in every file of a finished run, of its evaluation and report, and of a chain."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import saved
from fuzzing import LOCKS, chained, command, contents, evaluated
from unlearnkit.errors import UnlearnError
from unlearnkit.evaluation.evaluate import evaluate_run


def flipped(whole: bytes) -> bytes:
    at = len(whole) // 2
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


def cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


HARMS = {"flipped": flipped, "cut": cut}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in contents(folder) if path.name not in LOCKS and path.stat().st_size)


def damages(folder: Path, harm: str) -> Iterator[Path]:
    """The folder with one file after the other damaged; each is whole again afterwards."""
    for path in files(folder):
        whole = path.read_bytes()
        try:
            path.write_bytes(HARMS[harm](whole))
            yield path
        finally:
            path.write_bytes(whole)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("damage") / "evaluated"
    shutil.copytree(evaluated().parent, place)
    return place / "run"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(chained(), tmp_path_factory.mktemp("damage") / "chain"))


@pytest.mark.parametrize("harm", HARMS)
def test_verify_finds_every_damage_of_a_run(run: Path, harm: str):
    assert command("verify", run).code == 0
    missed, before = [], contents(run)
    for path in damages(run, harm):
        ended = command("verify", run)
        found = ended.code == 2 and (ended.err.count("\n") == 1 or ended.out.startswith("changed: "))
        missed += [] if found else [str(path.relative_to(run))]
    assert missed == []
    assert contents(run) == before, "verify changes nothing"


@pytest.mark.parametrize("harm", HARMS)
def test_verify_finds_every_damage_of_a_chain(chain: Path, harm: str):
    assert command("chain", "verify", chain).code == 0
    missed = []
    for path in damages(chain, harm):
        ended = command("chain", "verify", chain)
        found = ended.code == 2 and (ended.err.count("\n") == 1 or ended.out.startswith("changed: "))
        missed += [] if found else [str(path.relative_to(chain))]
    assert missed == []


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(
    "words", [["report", "run"], ["compare", "run", "run", "--out", "comparison"]], ids=str
)
def test_what_reads_a_damaged_run_ends_with_0_or_2(run: Path, harm: str, words: list[str], tmp_path: Path):
    told = [str(run) if word == "run" else word for word in words]
    told = [str(tmp_path / word) if word == "comparison" else word for word in told]
    wrong = []
    reports = [run / "report.html", run / "report.json"]
    kept = {path: path.read_bytes() for path in reports}
    for path in damages(run, harm):
        ended = command(*told)
        if ended.code not in (0, 2) or (ended.code == 2 and ended.err.count("\n") != 1):
            wrong.append((str(path.relative_to(run)), ended))
        for report, whole in kept.items():
            report.write_bytes(whole)
        shutil.rmtree(tmp_path / "comparison", ignore_errors=True)
    assert wrong == []


@pytest.mark.fuzz
@pytest.mark.parametrize("harm", HARMS)
def test_an_evaluation_of_which_a_file_is_damaged_is_mended_or_refused(run: Path, harm: str):
    """It is under way: its figures are not there yet."""
    wrong = []
    for path in damages(run, harm):
        if path.name == "evaluation.json":
            continue
        copy = run.parent / "copy"
        shutil.copytree(run, copy)
        for file in copy.rglob("evaluation.json"):
            file.unlink()
        try:
            evaluate_run(
                copy, suite="prompts", file=run.parent / "rows.csv", evaluators=lambda device: saved.tools()
            )
        except UnlearnError as error:
            assert "\n" not in str(error)
        except Exception as error:
            wrong.append((str(path.relative_to(run)), repr(error)[:200]))
        shutil.rmtree(copy)
    assert wrong == []


@pytest.mark.fuzz
@pytest.mark.parametrize("harm", HARMS)
def test_a_run_of_which_a_file_is_damaged_is_resumed_or_refused(run: Path, harm: str):
    wrong = []
    for path in damages(run, harm):
        copy = run.parent / "copy"
        shutil.copytree(run, copy)
        ended = command("erase", "--resume", "--out", copy)
        if ended.code not in (0, 2):
            wrong.append((str(path.relative_to(run)), ended))
        shutil.rmtree(copy)
    assert wrong == []
