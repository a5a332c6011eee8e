"""What the documentation says is so: names exist, commands parse, code runs, and importing costs nothing."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import newcomer
import unlearnkit
from unlearnkit import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    "README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
    "SECURITY.md",
    "comfyui/README.md",
]


def commands(page: str) -> list[list[str]]:
    """Every command of a page, in its blocks and in its lines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [
        line for block in newcomer.blocks(page) if block.language == "sh" for line in block.text.splitlines()
    ]
    lines += re.findall(r"`(unlearnkit [^`]+)`", text)
    lines = [line.removeprefix(".venv/bin/") for line in lines]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("unlearnkit ")]


def test_the_readme_has_code_and_commands():
    assert any(block.language == "python" for block in newcomer.blocks("README.md"))
    assert len(commands("README.md")) > 5


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_the_order_of_a_reader(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    newcomer.read(page, tmp_path, capsys)


def test_blocks_that_are_not_run_say_why_and_are_counted():
    marked = [(page, block.mark) for page in PAGES for block in newcomer.blocks(page) if block.mark]
    assert [(page, mark) for page, mark in marked if not re.fullmatch(r"(not run|slow): \S.{9,}", mark)] == []
    assert Counter(page for page, _ in marked) == {
        "README.md": 3,
        "docs/attacks.md": 1,
        "docs/evaluation.md": 1,
        "docs/studio.md": 2,
    }


def test_blocks_without_a_language_are_no_commands():
    for page in PAGES:
        for block in newcomer.blocks(page):
            assert block.language in ("sh", "python", ""), page
            assert block.language or not re.search(
                r"^(unlearnkit|scripts/\w+|python|pip) ", block.text, re.M
            ), page


def test_every_rule_of_the_reading_is_used():
    lines = [line for page in PAGES for block in newcomer.blocks(page) for line in block.commands()]
    assert [rule for rule in newcomer.RULES if not any(re.search(rule[0], line) for line in lines)] == []


@pytest.mark.reader
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_works_as_it_stands(page: str, tmp_path: Path):
    newcomer.read_as_it_stands(page, tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_parse(page: str):
    for words in commands(page):
        command = cli.command()
        while hasattr(command, "commands") and not words[0].startswith("--"):
            command, words = command.commands[words[0]], words[1:]
        if words:  # a command may be mentioned by its name alone
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
    rooms = {path for path in (ROOT / "unlearnkit").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert {path for path in rooms - named if path.name not in quiet} == set()


@pytest.mark.parametrize("page", [*PAGES, "PAPERS.md", "CHANGELOG.md"])
def test_links_of_a_page_lead_somewhere(page: str):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str):
    named = re.findall(
        r"`((?:scripts|benchmarks|recipes|tests|docs|unlearnkit)/[\w./-]+)`",
        (ROOT / page).read_text(encoding="utf-8"),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


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
    HELP.format(["methods"]),
    HELP.format(["methods", "esd"]),
    HELP.format(["methods", "esdd"]),
    HELP.format(["eraze"]),
    HELP.format(["erase", "canvas", "--concept", "cat", "--method", "esdd"]),
    HELP.format(["erase", "canvas", "--concept", "cat", "--set", "stepz=3"]),
    HELP.format(["erase", "canvas", "--concept", "cat", "--set", "steps=many"]),
    HELP.format(["erase", "canvas", "--concept", "cat", "--trains", "xatn"]),
    HELP.format(["erase", "canvas", "--concept", "cat", "--kind", "thing"]),
    HELP.format(["erase", "canvass", "--concept", "cat"]),
    HELP.format(["evaluate", "runs/esd-cat-0", "--suite", "canvass"]),
    HELP.format(["evaluate", "runs/esd-cat-0", "--limit", "2"]),
    HELP.format(["chain", "guards"]),
    HELP.format(["chain", "init", "p", "canvas", "--guard", "repaly=3"]),
    HELP.format(["chain", "init", "p", "canvas", "--merge", "rule=tie"]),
    "import unlearnkit.studio.views",
    "import unlearnkit.sweep.plan",
]


@pytest.mark.parametrize("code", LIGHT)
def test_importing_help_and_refusals_are_light(code: str):
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stderr.split())


def test_the_readme_has_the_measured_table():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    table = re.search(r"## At a glance\n\n((?:\|.*\n)+)", page)
    assert table and table[1] in README, "copy the table at a glance of docs/methods.md into the README"
