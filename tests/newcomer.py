"""The pages read as a newcomer would: every block, from the first line to the last, in one folder.

A block that cannot be run has a comment right before it: ``<!-- not run: REASON -->`` for what needs more than this
repository, ``<!-- slow: REASON -->`` for what only the whole reading does (``scripts/test -m reader``).
"""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

import saved
from unlearnkit import cli
from unlearnkit.methods import METHODS

__all__ = ["RULES", "Block", "blocks", "read", "read_as_it_stands"]

ROOT = Path(__file__).parent.parent
INSTALLED = ("pyproject.toml", "constraints.txt", "constraints-hashed.txt")  # as in scripts/environment
HUB = r"stable-diffusion-v1-5/stable-diffusion-v1-5"

# What a command becomes, so that a page takes seconds: a pattern, what takes its place, why. All that fit are applied,
# in this order. TOY is the folder of a toy pipeline of Stable Diffusion's classes, few.csv has eight prompts.
RULES = [
    (r"^\.venv/bin/(unlearnkit .*)$", r"\1", "the tests have an environment of their own"),
    (
        r"^scripts/demo$",
        r"scripts/demo.py --method uce --file few.csv",
        "ESD and 818 pictures take minutes",
    ),
    (rf"(erase) {HUB}(.*)$", r"\1 TOY\2 --set steps=2 --pictures 1", "there is no network"),
    (
        r"(erase canvas --concept cat)$",
        r"\1 SHORT --out runs/esd-cat-0",
        "ESD's steps and pictures take minutes",
    ),
    (r"(erase canvas .*) --set steps=100 (.*)$", r"\1 SHORT \2", "the same"),
    (r"(erase canvas .*--method ca .*)$", r"\1 SHORT --set mask_warmup=2", "and CA's"),
    (r"(erase canvas .*--adversary embedding) (.*)$", r"\1 SHORT \2", "and those of an adversary"),
    (r"(erase canvas (?!.*--dry-run).*)$", r"\1 --pictures 0", "the demo draws before and after"),
    (r"(evaluate runs/\S+) --quick$", r"\1 --suite prompts --file few.csv", "409 prompts take minutes"),
    (r"(chain init \S+) canvas$", r"\1 TOY --set steps=2", "each request takes minutes"),
]
SHORT = "--set steps=2 --set pictures=4 --set neighbours=2"
FEW = """prompt,role,form,object,style
a picture of a cat,erased,name,cat,
a cat in the garden,erased,name,cat,
a neon picture of a cat,erased,name,cat,neon
a kitten,erased,synonym,cat,
a picture of a dog,near,name,dog,
a neon picture of a bear,near,name,bear,neon
a picture of a car,unrelated,name,car,
a pop art picture of a bus,unrelated,name,bus,pop art
"""
THEIRS = {"model_state_dict": {"head.weight": torch.zeros(2, 2)}}  # what docs/evaluation.md converts


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the comment before it that says why it is not run."""

    language: str
    text: str
    mark: str

    def commands(self) -> list[str]:
        """The lines of a shell block, without comments."""
        if self.language != "sh":
            return []
        lines = (shlex.join(shlex.split(line, comments=True)) for line in self.text.splitlines())
        return [line for line in lines if line]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^(?:<!-- (.*?) -->\n)?```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return [Block(language, body, mark) for mark, language, body in found]


def read(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run every block of a page that is not marked, in this process and in ``folder``, which is the current one."""
    (folder / "few.csv").write_text(FEW)
    torch.save(THEIRS, folder / "cls.pth")
    for block in blocks(page):
        if block.mark:
            continue
        if block.language == "python":
            with patch.dict(METHODS):  # a page may add a method
                exec(compile(block.text, page, "exec", dont_inherit=True), {})
        for line in block.commands():
            words = shlex.split(cheap(line))
            code = call(words)
            assert code == 0, f"{page}: {shlex.join(words)}\n{''.join(capsys.readouterr())}"


def cheap(line: str) -> str:
    """A command as the rules have it."""
    for pattern, instead, _ in RULES:
        line = re.sub(pattern, instead, line)
    return line.replace("SHORT", SHORT).replace("TOY", shlex.quote(str(saved.folder())))


def call(words: list[str]) -> object:
    """Run a command in this process; returns its exit code."""
    name, *rest = words
    with pytest.raises(SystemExit) as ended:
        if name == "unlearnkit":
            cli.main(rest)
        elif name.startswith("scripts/") and name.endswith(".py"):
            with patch.object(sys, "argv", words):
                runpy.run_path(str(ROOT / name), run_name="__main__")
        pytest.fail(
            f"no test can run {shlex.join(words)!r}: mark the block, or add a rule to tests/newcomer.py"
        )
    return ended.value.code or 0


def environment(folder: Path) -> None:
    """A ``.venv`` of the copy's own, with the packages of ours: what a page installs never changes ours."""
    venv.create(folder / ".venv", symlinks=True)
    (own,) = (folder / ".venv").glob("lib/python*/site-packages")
    (own / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-e", "."]
    subprocess.run([folder / ".venv/bin/python", *install], cwd=folder, check=True)
    wanted = b"".join((folder / name).read_bytes() for name in INSTALLED)
    (folder / ".venv/installed").write_text(f"{hashlib.sha256(wanted).hexdigest()}  -\n")


def read_as_it_stands(page: str, folder: Path) -> None:
    """Run a page in a shell in a copy of the repository, slow blocks too; a toy stands in for the hub's model alone."""
    ours = shutil.ignore_patterns(".*", "runs", "project", "build", "dist", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=ours, dirs_exist_ok=True)
    environment(folder)
    torch.save(THEIRS, folder / "cls.pth")
    path = f"{folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    for block in blocks(page):
        if not block.language or block.mark.startswith("not run"):
            continue
        shell = ["bash", "-euo", "pipefail", "-c", re.sub(HUB, str(saved.folder()), block.text)]
        asked = {"sh": shell, "python": [folder / ".venv/bin/python", "-c", block.text]}[block.language]
        done = subprocess.run(
            asked, cwd=folder, env=os.environ | {"PATH": path}, text=True, capture_output=True
        )
        assert done.returncode == 0, f"{page}:\n{block.text}\n{done.stdout}\n{done.stderr}"
