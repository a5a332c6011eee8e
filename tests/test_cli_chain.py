"""The commands of a chain say what they do, and call what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import saved
from unlearnkit.chain.project import open_chain
from unlearnkit.cli import main
from unlearnkit.schema import Concept, Request

HEAVY = {"torch", "diffusers", "transformers", "numpy", "scipy", "PIL", "safetensors"}


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command of a chain in an empty folder, and return what it printed on stdout, or on stderr if it failed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 0) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["chain", *map(str, words)])
        told = capsys.readouterr()
        assert stopped.value.code == code, told
        return " ".join((told.err if code else told.out).split())

    return run


def test_from_init_to_build(said, tmp_path: Path) -> None:
    init = ("init", "p", saved.folder(), "--method", "uce", "--regime", "merged", "--pictures", 0)
    assert "a merged chain" in said(*init, "--merge", "rule=mean")
    assert "entry 1" in said("add", "p", "--concept", "cat", "--phrase", "kitten")
    said("add", "p", "--concept", "neon", "--kind", "style", "--set", "ridge=1.0", "--keep", "dog")
    told = said("status", "p")
    assert "merged chain on" in told
    assert "cat uce" in told
    assert "2 edits" in told
    assert said("drop", "p", 1, "--dry-run") == "takes back request 1: exact, nothing is trained again"
    assert said("drop", "p", 1).startswith("takes back request 1: exact")
    assert "nothing was changed" in said("verify", "p", "--redraw", "100%")
    listed = said("log", "p")
    assert [word for word in listed.split() if word in ("init", "add", "drop")] == [
        "init",
        "add",
        "add",
        "drop",
    ]
    with pytest.raises(SystemExit, match="0"):
        main(["export", "p", "--out", "lora.safetensors", "--lose", "0"])
    assert load_file("lora.safetensors")
    said("undo", "p")
    assert "no request" in said("status", "p")
    said("build", "p", "--out", "built")
    assert (tmp_path / "built" / "unlearnkit-ledger.jsonl").is_file()
    text = (tmp_path / "p" / "ledger.jsonl").read_text(encoding="utf-8")
    (tmp_path / "p" / "ledger.jsonl").write_text(text.replace('"cat"', '"cow"'), encoding="utf-8")
    (tmp_path / "p" / "ledger.jsonl").chmod(0o644)
    assert "line 2 does not fit its hash" in said("status", "p", code=2)
    with pytest.raises(SystemExit):
        main(["chain", "verify", "p"])


def test_guards_are_listed_with_their_sources(said) -> None:
    told = said("guards")
    for word in ("--guard bank=200", "--guard project=0", "--merge rule=ties", "source:"):
        assert word in told


def test_each_takes_phrase_and_instead_for_one_concept(said, tmp_path: Path) -> None:
    said("init", "p", saved.folder(), "--method", "uce", "--pictures", 0)
    asked = ("--each", "--phrase", "kitten", "--instead", "dog")
    assert "for several, use a file" in said(
        "add", "p", "--concept", "cat", "--concept", "car", *asked, code=2
    )
    said("add", "p", "--concept", "cat", *asked)
    (step,) = open_chain(tmp_path / "p").steps
    assert step.request == Request((Concept("cat", phrases=("kitten",), instead="dog"),))


def test_a_changed_place_is_told_by_drop_too(said, tmp_path: Path) -> None:
    said("init", "p", saved.folder(), "--method", "uce", "--regime", "joint", "--pictures", 0)
    said("add", "p", "--concept", "cat", "--instead", "dog")
    told = said("add", "p", "--concept", "dog")
    assert "'cat': nothing takes its place now, no longer 'dog'" in told
    told = said("drop", "p", 2, "--json")
    assert json.loads(told)["instead"] == {}, "no edit was made again"
    said("add", "p", "--concept", "bear", "--instead", "car")
    assert json.loads(said("drop", "p", 1, "--json"))["instead"] == {"bear": "car"}


def test_status_cuts_no_name_and_no_time(said) -> None:
    said("init", "p", saved.folder(), "--method", "uce", "--pictures", 0)
    said("add", "p", "--concept", "[b]cat[/b]", "--force")
    told = said("status", "p")
    assert "[b]cat[/b]" in told
    time = json.loads(said("status", "p", "--json"))["requests"][0]["time"]
    assert time[:16].replace("T", " ") in told


def test_mistakes_are_one_line(said, tmp_path: Path) -> None:
    assert "the name of the folder is empty" in said("init", "", saved.folder(), code=2)
    assert not any(tmp_path.iterdir())
    merge = ("init", "p", saved.folder(), "--merge", "rule=mean")
    assert "merge is for regime merged, and this chain is sequential" in said(*merge, code=2)
    assert "is no chain" in said("status", "nowhere", code=2)
    assert "did you mean 'replay'" in said("init", "p", saved.folder(), "--guard", "repaly=3", code=2)
    assert not Path("p").exists()
    said("init", "p", saved.folder(), "--pictures", 0)
    assert "did you mean 'steps'" in said("add", "p", "--concept", "cat", "--set", "stepz=3", code=2)


def test_status_of_a_chain_loads_no_model(said, tmp_path: Path) -> None:
    said("init", "p", saved.folder(), "--pictures", 0)
    code = "import contextlib, sys, unlearnkit.cli\nwith contextlib.suppress(SystemExit): "
    code += "unlearnkit.cli.main(['chain', 'status', 'p'])\n"
    code += "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert HEAVY.isdisjoint(done.stderr.split())
    assert "no request" in done.stdout


def test_a_concept_holds_up_to_the_limit_of_the_claims() -> None:
    from unlearnkit.chain.commands.status import LIMIT
    from unlearnkit.evaluation.plan import Rules

    assert Rules().limit == LIMIT
