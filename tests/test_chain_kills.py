"""Whatever writes a chain may be killed at any moment, or started twice: the same call again ends in the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_chain import begun, killed_after, killed_when
from test_chain_harm import tools

import saved
from unlearnkit import chain
from unlearnkit.chain.ledger import LEDGER, Entry
from unlearnkit.chain.project import EDITS, WORK, change_chain, open_chain
from unlearnkit.errors import InputError
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept

QUICK: dict[str, Any] = {"steps": 2, "lr": 1e-3, "batch": 2, "start_steps": 2, "trains": "xattn"}
COMMANDS: dict[str, Callable[[Path, Model], object]] = {
    "undo": lambda folder, toy: chain.undo(folder, model=toy, evaluators=tools()),
    "drop": lambda folder, toy: chain.drop(folder, 1, model=toy, evaluators=tools()),
    "report": lambda folder, toy: chain.report(folder),
    "build": lambda folder, toy: chain.build(folder, folder.with_name(f"{folder.name}-built"), model=toy),
}


@pytest.fixture(scope="module")
def toy() -> Model:
    return load(saved.folder())


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, toy: Model) -> Path:
    """A chain of three requests of ESD with looks; treat it as read-only."""
    project = begun(tmp_path_factory.mktemp("kills") / "p", toy, settings=QUICK, pictures=1)
    for name in ("cat", "car", "bear"):
        chain.add(project, name, model=toy, evaluators=tools())
    return project


def contents(folder: Path) -> dict[str, object]:
    """What is the same whenever it is made: the models, pictures and rows, the names of the edits, and their order."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.name == LEDGER:
            lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            found[name] = [(line["kind"], line["facts"]["weights"]) for line in lines]
        elif path.parent.name == EDITS:
            found[name] = "an edit"
        elif path.suffix in (".png", ".jsonl", ".safetensors"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("count", [3, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_is_gone_on_with_to_the_same_bytes(
    command: str, count: int, three: Path, toy: Model, tmp_path: Path
) -> None:
    run = COMMANDS[command]
    whole = Path(shutil.copytree(three, tmp_path / "whole"))
    start = time.monotonic()
    run(whole, toy)
    took = time.monotonic() - start
    kills = 0
    for turn in range(count):
        project = Path(shutil.copytree(three, tmp_path / f"p{turn}"))
        was = open_chain(project).head
        kills += killed_after(took * (turn + 0.3) / count, lambda project=project: run(project, toy))
        if command != "report":  # whose two files are there only together
            assert not chain.verify(project)
        built = project.with_name(f"{project.name}-built")
        if open_chain(project).head == was and not built.exists():
            run(project, toy)
        assert not chain.verify(project)
        with change_chain(project):
            pass  # a kill may come after the new state is written, while the folder of its work is removed
        assert contents(project) == contents(whole)
        assert not (project / WORK).exists()
        if command == "build":
            assert contents(built) == contents(whole.with_name("whole-built"))
            assert (built / "unlearnkit-ledger.jsonl").read_bytes() == (project / LEDGER).read_bytes()
    assert kills


def together(*calls: Callable[[], object]) -> list[str]:
    """Run each in a process of its own, all at once: ``"done"``, or the refusal."""
    begin, go = os.pipe()
    children = []
    for number, call in enumerate(calls):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            said = "failed"
            try:
                os.close(go)
                os.read(begin, 1)  # until all are there
                call()
                said = "done"
            except InputError as error:
                said = str(error)
            finally:
                os.write(write, said.encode())
                os._exit(number)
        os.close(write)
        children.append((child, read))
    os.close(go)
    found = []
    for child, read in children:
        with os.fdopen(read) as answer:
            found.append(answer.read())
        os.waitpid(child, 0)
    os.close(begin)
    return found


def test_of_two_that_begin_a_chain_one_does(toy: Model, tmp_path: Path) -> None:
    for turn in range(5):
        project = tmp_path / f"p{turn}"
        said = together(
            lambda project=project: chain.init(project, toy, method="uce", settings={}),
            lambda project=project: chain.init(project, toy, method="esd", pictures=0),
        )
        assert said.count("done") == 1
        other = next(one for one in said if one != "done")
        assert "is not empty" in other or "another process" in other
        assert not chain.verify(project)
        assert len(chain.log(project)) == 1


def test_of_two_that_change_a_chain_none_mixes_with_the_other(
    three: Path, toy: Model, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(three, tmp_path / "p"))
    said = together(
        lambda: chain.add(project, "dog", model=toy, evaluators=tools()),
        lambda: chain.drop(project, 1, model=toy, evaluators=tools()),
        lambda: chain.undo(project, model=toy, evaluators=tools()),
        lambda: chain.report(project),
        lambda: chain.build(project, tmp_path / "built", model=toy),
    )
    assert said[-1] == "done", "building only reads"
    assert all(one == "done" or "another process (" in one for one in said), said
    assert not chain.verify(project, redraw=1.0, model=toy)
    written = len(chain.log(project)) - 4
    assert written == said[:3].count("done")
    built = load(tmp_path / "built").fingerprint()
    lines = (tmp_path / "built" / "unlearnkit-ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["facts"]["weights"] == built


def test_a_list_killed_twice_ends_as_if_it_had_not_been(toy: Model, tmp_path: Path) -> None:
    names = [Concept(name) for name in ("cat", "dog", "car", "bear", "tree")] + [Concept("neon", "style")]

    def run(project: Path) -> list[Entry]:
        return chain.add_each(project, names, model=toy)

    whole = begun(tmp_path / "whole", toy, method="uce", settings={})
    assert len(run(whole)) == len(names)
    project = begun(tmp_path / "p", toy, method="uce", settings={})
    for count in (1, 3):  # requests
        assert killed_when(lambda least=count: len(chain.log(project)) > least, lambda: run(project))
    assert len(run(project)) <= len(names) - 3, "what is in the ledger already is passed over"
    assert contents(project) == contents(whole)
    assert run(project) == []
    with pytest.raises(InputError, match="'cat' is erased already"):
        chain.add_each(project, [Concept("dog"), Concept("cat", phrases=("kitten",))], model=toy)
    with pytest.raises(InputError, match="tokens long"):
        chain.add_each(project, [Concept("owl"), Concept("a very long name " * 9)], model=toy)
    assert contents(project) == contents(whole), "nothing was erased before the name that is too long"
