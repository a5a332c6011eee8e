"""What Tab offers: in bash itself, and quickly."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unlearnkit import known
from unlearnkit.cli import main

ROOT = Path(__file__).parents[1]
BASH = shutil.which("bash")


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What the completion answers to bash for a command line whose last word is incomplete."""
    monkeypatch.chdir(tmp_path)

    def offer(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_UNLEARNKIT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        capsys.readouterr()
        with pytest.raises(SystemExit, match="0"):
            main([])
        return capsys.readouterr().out.split()

    return offer


def test_names_are_completed(offered, tmp_path: Path) -> None:
    assert offered("unlearnkit me") == ["methods"]
    assert offered("unlearnkit methods es") == ["esd"]
    assert offered("unlearnkit erase canvas --method ") == list(known.methods())
    assert offered("unlearnkit erase canvas --set step") == ["steps=1000"]
    assert offered("unlearnkit erase canvas --method uce --set step") == []
    assert offered("unlearnkit erase canvas --method duge --mask sal") == ["saliency"]
    assert offered("unlearnkit attack x --attack inv") == ["inversion"]
    assert offered("unlearnkit evaluate x --suite i") == ["i2p"]
    assert offered("unlearnkit chain init p canvas --guard bank=") == ["bank=200"]
    assert offered("unlearnkit erase canvas-") == ["canvas-flow", "canvas-classes"]
    assert offered("unlearnkit erase canvas --dtype b") == ["bfloat16"]


def test_runs_and_chains_are_completed(offered, tmp_path: Path) -> None:
    for place in ("runs/esd-cat-0/recipe.toml", "runs/uce-cat-0/recipe.toml", "chains/one/ledger.jsonl"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    assert offered("unlearnkit evaluate ") == ["runs/esd-cat-0", "runs/uce-cat-0"]
    assert offered("unlearnkit evaluate ru") == ["runs/"]
    assert offered("unlearnkit report runs/u") == ["runs/uce-cat-0"]
    assert offered("unlearnkit chain status chains/") == ["chains/one"]
    assert offered("unlearnkit chain status nowhere/") == []


@pytest.mark.skipif(not BASH, reason="bash is missing")
def test_tab_in_bash(tmp_path: Path) -> None:
    """The script of --show-completion, sourced and asked as bash asks it, and without torch."""
    program = tmp_path / "bin" / "unlearnkit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -X importtime -m unlearnkit "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    script = """
        set -e
        unlearnkit --install-completion 2>/dev/null
        source .bashrc
        complete -p unlearnkit
        COMP_WORDS=(unlearnkit erase canvas --method u); COMP_CWORD=4
        _unlearnkit_completion unlearnkit 2>imports
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [BASH, "--norc", "-c", script], env=env, capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "-F _unlearnkit_completion unlearnkit" in done.stdout
    assert "\nuce uce-diverse\n" in done.stdout
    loaded = {line.split("|")[-1].strip() for line in (tmp_path / "imports").read_text().splitlines()}
    assert "unlearnkit.cli" in loaded
    assert not loaded & {"torch", "numpy", "PIL", "diffusers", "transformers"}
