"""What the documentation says is so: names exist, commands parse, code runs, and importing costs nothing."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import saved
import unlearnkit
from unlearnkit.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"`(unlearnkit [^`]+)`", README)
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("unlearnkit ")]


def test_the_readme_has_code_and_commands():
    assert blocks("python")
    assert len(commands()) > 5


@pytest.mark.parametrize("code", blocks("python"))
def test_python_of_the_readme_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "cache"))
    exec(compile(code.replace('"canvas"', repr(str(saved.folder()))), "README.md", "exec"), {})


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_of_the_readme_parse(words: list[str]):
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words)


def test_files_that_the_readme_names_exist():
    tree = re.search(r"## The tree\n\n```\n(.*?)```", README, re.S)
    assert tree
    room, named = ROOT, set()
    for line in tree[1].splitlines():
        name, depth = line.split()[0], len(line) - len(line.lstrip())
        place = {0: ROOT, 2: ROOT / "unlearnkit", 4: room}[depth] / name
        assert place.exists(), line
        named.add(place)
        room = place if depth == 2 else room
    open_rooms = {path.parent for path in named if path.parent != ROOT}
    there = {
        path for folder in open_rooms for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()
    }
    quiet = ("__init__.py", "__main__.py", "__pycache__", "grammars")
    assert {path for path in there - named if path.name not in quiet} == set(), (
        "the README's tree lacks these"
    )


def test_links_of_the_readme_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_all_names_are_there():
    assert len(set(unlearnkit.__all__)) == len(unlearnkit.__all__)
    for name in unlearnkit.__all__:
        assert getattr(unlearnkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'eraze'"):
        unlearnkit.eraze  # noqa: B018


def modules() -> list[Path]:
    return [path for path in (ROOT / "unlearnkit").rglob("*.py") if path.stem not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_all_of_a_module_is_what_it_defines(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bound: set[str] = set()
    public: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        if isinstance(node, ast.ImportFrom):
            bound.update(name.asname or name.name for name in node.names)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            bound.update(one.id for one in getattr(target, "elts", ()) if isinstance(one, ast.Name))
            if isinstance(target, ast.Name):
                bound.add(target.id)
                if target.id == "__all__":
                    public = ast.literal_eval(node.value)  # type: ignore[union-attr]
    assert set(public) <= bound


HEAVY = {"torch", "diffusers", "transformers", "numpy", "scipy", "PIL", "safetensors", "huggingface_hub"}


HELP = "import unlearnkit.cli, contextlib\nwith contextlib.suppress(SystemExit): unlearnkit.cli.main({})"
LIGHT = [
    "import unlearnkit",
    "import unlearnkit; unlearnkit.Concept; unlearnkit.Recipe; unlearnkit.InputError",
    HELP.format(["--help"]),
    HELP.format(["erase", "--help"]),
]


@pytest.mark.parametrize("code", LIGHT)
def test_importing_and_help_are_light(code: str):
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stderr.split())


def test_the_readme_has_the_measured_table():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    table = re.search(r"## At a glance\n\n((?:\|.*\n)+)", page)
    assert table and table[1] in README, "copy the table at a glance of docs/methods.md into the README"
