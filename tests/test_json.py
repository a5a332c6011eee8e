"""``--json``, ``--quiet`` and ``--verbose``: every command answers with one document that has the documented keys."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_chain_harm import classifier

import saved
from unlearnkit import cli
from unlearnkit.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text(encoding="utf-8")
NOT_RUN = {"evaluate --self-test", "attack --self-test", "canvas check", "studio"}  # long, or without end


def documented() -> dict[str, set[str]]:
    """The keys of each command's document, by the words of the command."""
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|$", PAGE.partition("## JSON")[2], re.M)
    keys = {}
    for commands, text in rows:
        names = {word.split()[0] for word in re.sub(r" \([^)]*\)", "", text).split(", ")}
        first, *others = re.findall(r"`([^`]*)`", commands)
        for command in (first, *(f"chain {other}" for other in others)):
            keys[command] = names
    return keys


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The exit code, stdout and stderr of a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        told = capsys.readouterr()
        return int(stopped.value.code or 0), told.out, told.err

    return run


def test_every_command_answers_in_json_with_the_documented_keys(said, tmp_path: Path) -> None:
    keys, seen = documented(), set()

    def answered(command: str, *words: object, code: int = 0) -> dict[str, Any]:
        ended, out, err = said(*words, "--json")
        assert ended == code, (words, out, err)
        document = json.loads(out, parse_constant=lambda name: pytest.fail(f"{words} has {name}"))
        assert set(document) == keys[command], command
        seen.add(command)
        return document

    assert answered("doctor", "doctor")["wrong"] == []
    toy, fast = saved.folder(), ("--method", "uce", "--pictures", 0, "--no-pipeline")
    answered("--version", "--version")
    answered("methods", "methods")
    assert answered("methods NAME", "methods", "esd")["settings"][0]["default"] is not None
    dry = answered("erase --dry-run", "erase", toy, "--concept", "cat", *fast, "--dry-run")
    assert dry["bytes"]["disk"] > 0 and dry["erases"][0]["name"] == "cat"
    made = answered("erase", "erase", toy, "--concept", "cat", *fast, "--out", "first")
    assert made["files"] == ["edit.safetensors", "recipe.toml", "run.json"]
    assert not made["was_finished"]
    again = answered("erase", "erase", "--resume", "--no-pipeline", "--out", "first")
    assert again == made | {"was_finished": True}
    drawn = answered("generate", "generate", toy, "--prompt", "a cat", "--edit", "first/edit.safetensors")
    assert Path(drawn["pictures"][0]).is_file()
    more = ("--edit", "first", "--out", "more")
    drawn = answered("generate", "generate", toy, "--prompt", "a cat", *more)
    assert drawn["edit"] == again["edit"], "a run folder stands for its edit"
    assert answered("export", "export", "first", "--out", "l.safetensors", "--lose", 0)["lost"] < 1e-6
    saved.evaluated(tmp_path)  # into the folder run
    answered("report", "report", "run")
    shutil.copytree("run", "copy")
    answered("compare", "compare", "run", "copy")
    assert answered("verify", "verify", "run")["changed"] == []
    (tmp_path / "run" / "recipe.toml").chmod(0o644)
    with (tmp_path / "run" / "recipe.toml").open("a") as file:
        file.write("# changed\n")
    assert answered("verify", "verify", "run", code=2)["changed"]
    answered("chain init", "chain", "init", "p", toy, "--method", "uce", "--pictures", 1)
    assert answered("chain add", "chain", "add", "p", "--concept", "cat")["entry"] == 1
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    listed = answered("chain add --each", "chain", "add", "p", "--concepts", "names.txt", "--each")
    assert (len(listed["entries"]), listed["passed_over"]) == (1, 1)
    status = answered("chain status", "chain", "status", "p")
    assert [one["concept"] for one in status["requests"]] == ["cat", "dog"]
    assert status["drift"] > 0 and status["requests"][0]["now"] is None  # no classifier
    plan = answered("chain undo --dry-run", "chain", "undo", "p", "--dry-run")["plan"]
    assert plan == {"removes": [2], "remade": [], "seconds": 0}
    answered("chain drop --dry-run", "chain", "drop", "p", 1, "--dry-run")
    answered("chain undo", "chain", "undo", "p")
    answered("chain drop", "chain", "drop", "p", 1)
    assert answered("chain verify", "chain", "verify", "p")["changed"] == []
    assert [one["kind"] for one in answered("chain log", "chain", "log", "p")["entries"]][-1] == "drop"
    answered("chain report", "chain", "report", "p")
    answered("chain build", "chain", "build", "p", "--out", "built")
    assert answered("chain guards", "chain", "guards")["merge"]
    (tmp_path / "few.csv").write_text("prompt,role,form,object\na cat,erased,name,cat\na dog,near,name,dog\n")
    classifier(tmp_path / "eye")
    few = ("--suite", "prompts", "--file", "few.csv", "--objects", "eye")
    found = answered("evaluate", "evaluate", "first", *few)
    assert found["verdict"]["kept"]["groups"]["near objects"]["before"]["n"] == 1
    planned = answered("attack --dry-run", "attack", "first", "--attack", "noise_probe", "--dry-run")
    assert planned["seconds"] > 0
    words = '[[erase]]\nname = "cat"\n[[methods]]\nname = "uce"\n'
    (tmp_path / "sweep.toml").write_text(f'model = "{toy}"\n{words}')
    assert answered("sweep --dry-run", "sweep", "sweep.toml", "--dry-run")["runs"][0]["variant"] == "uce"
    assert set(keys) - seen == NOT_RUN | {"attack", "sweep"}


def test_every_command_of_the_page_exists_and_every_command_is_on_the_page() -> None:
    def leaves(command: Any, words: tuple[str, ...] = ()) -> list[str]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return [" ".join(words)]
        return [name for key, one in inner.items() for name in leaves(one, (*words, key))]

    told = {" ".join(w for w in command.split() if w.islower() and w[0] != "-") for command in documented()}
    assert told - {""} == set(leaves(cli.command()))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["methods", "nope"], "method 'nope' is unknown"),
        (["erase", "canvas", "--nope"], "No such option"),
        (["chain", "--nope"], "No such option"),
        ([], "the command is missing"),
        (["verify", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_documents_too(said, words: list[str], says: str) -> None:
    code, out, err = said(*words, "--json")
    assert code == 2
    assert says in json.loads(out)["error"]
    assert says in err
    assert says in said("--json", *words)[1]


def test_help_instead_of_a_command_is_no_answer(said) -> None:
    code, out, err = said("--json", "chain")
    assert (code, list(json.loads(out))) == (2, ["error"])
    assert "Usage" in err
    assert "Usage" in said("chain", "--help", "--json")[1]


def test_quiet_says_only_what_is_wrong(said) -> None:
    words = (
        "erase",
        saved.folder(),
        "--concept",
        "carr",
        "--method",
        "uce",
        "--pictures",
        0,
        "--no-pipeline",
    )
    code, out, err = said(*words, "--out", "loud")
    assert (code, "note: " in err, "run folder: loud" in err) == (0, True, True)
    assert said(*words, "--out", "still", "--quiet") == (0, out.replace("loud", "still"), "")
    assert said("--quiet", *words, "--out", "still")[2].startswith("'still' already has a finished run")


def test_verbose_says_where_an_error_came_from_and_what_a_command_took(said) -> None:
    code, out, err = said("methods", "nope", "--verbose")
    assert (code, out) == (2, "")
    assert "Traceback" in err and "known.py" in err
    assert re.search(r"^took \d+\.\d s, ", said("methods", "--verbose")[2], re.M)
    assert "Traceback" not in said("methods", "nope")[2], "one command's options do not reach the next"
