"""What reaches a terminal: text on one line that moves no cursor, help that fits, and readers who leave early."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import forked
from rich.table import Table

import saved
from unlearnkit.cli import main
from unlearnkit.cli.terminal import Safe
from unlearnkit.errors import listed, nearest, quoted
from unlearnkit.io.progress import showing

EVIL = "cat\x1b[2J\x1b]0;mine\x07\n\u202ered\x9b31m [/x] :dog:"


def ended(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


def harmless(text: str) -> bool:
    return all(one.isprintable() or one == "\n" for one in text)


@pytest.mark.parametrize("terminal", [True, False])
def test_whatever_a_user_named_is_shown_and_never_obeyed(terminal: bool):
    page = io.StringIO()
    console = Safe(
        file=page, force_terminal=terminal, color_system=None, width=200, markup=False, emoji=False
    )
    console.print(EVIL)
    table = Table("name", box=None)
    table.add_row(EVIL)
    console.print(table)
    said = page.getvalue()
    assert said.count(r"cat\x1b[2J\x1b]0;mine\x07\n\u202ered\x9b31m [/x] :dog:") == 2
    assert harmless(said), "our own line breaks alone are left"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_as_safe(terminal: bool):
    page = io.StringIO()
    with showing(
        Safe(file=page, force_terminal=terminal, width=200, highlight=False), f"erasing {EVIL}"
    ) as tick:
        tick(EVIL, 1, 2)
        tick(EVIL, 2, 2)
    said = page.getvalue()
    assert r"erasing cat\x1b[2J\x1b]0;mine" in said and r"\u202ered\x9b31m [/x] :dog:" in said
    assert not any(piece in said for piece in ("\x1b[2J", "\x1b]0", "\u202e", "\x9b"))


@pytest.mark.parametrize(
    "words",
    [
        ["erase", EVIL, "--concept", EVIL],
        ["erase", saved.folder(), "--concept", "cat", "--method", EVIL],
        ["erase", saved.folder(), "--concept", "cat", "--set", EVIL],
        ["erase", saved.folder(), "--concept", "cat", "--seed", EVIL],
        ["erase", "--recipe", EVIL],
        ["generate", saved.folder(), "--prompt", "a", "--edit", EVIL],
        [EVIL],
        ["erase", f"--{EVIL}"],
    ],
    ids=range(8),
)
@pytest.mark.parametrize("times", [1, 2000])
def test_what_is_wrong_is_one_short_line(
    words: list[str], times: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, said = ended(
        capsys, *[word * times if word in (EVIL, f"--{EVIL}") else word for word in words]
    )
    assert (code, out) == (2, "")
    assert said.count("\n") == 1 and harmless(said), said
    assert len(said) <= 1001


def test_values_are_quoted_to_80_characters_and_lists_to_400():
    assert len(quoted("x" * 10_000)) == len(quoted([1] * 10_000)) == 80
    assert quoted(10**5000) == "a int that is too large to print"
    assert listed(f"name{i}" for i in range(3)) == "name0, name1, name2"
    assert listed(f"name{i}" for i in range(10_000)).endswith(", name51 and 9948 more")
    assert len(listed("x" * 10_000 for _ in range(10_000))) < 600


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["erase", "canvas", "--concept", "cat", "--method", "ESD"], "did you mean 'esd'?"),
        (["erase", "Canvas", "--concept", "cat"], "did you mean 'canvas'?"),
        (["generate", "canvas-flwo", "--prompt", "cat"], "did you mean 'canvas-flow'?"),
        (["generate", "./modle", "--prompt", "cat"], "did you mean 'model'?"),
        (["generate", "fien.safetensors", "--prompt", "cat"], "did you mean 'fine.safetensors'?"),
        (["methods", "UCE"], "did you mean 'uce'?"),
        (["eraze"], "Did you mean 'erase'"),
        (["erase", "--concpt", "cat"], "--concept"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_gets_the_nearest_name(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "fine.safetensors").touch()
    code, _, said = ended(capsys, *words)
    assert code == 2 and says in said and said.count("\n") == 1


def test_a_concept_that_looks_like_a_slip_gets_a_note(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved.folder(), "model")
    for concept, noted in (("catt", True), ("cat", False), ("bat", False), ("zebu", False)):
        words = ["erase", "model", "--concept", concept, "--method", "uce", "--dry-run"]
        code, _, said = ended(capsys, *words)
        assert code == 0
        assert ("did you mean 'cat'?" in said) == noted, said


def test_the_nearest_name_is_sought_in_any_case_and_among_few():
    assert nearest("CAT", ["cat", "dog"]) == " (did you mean 'cat'?)"
    assert nearest("x" * 10_000, ["x" * 10_000]) == ""
    assert nearest("cat", ["c\x1bat"]) == r" (did you mean 'c\x1bat'?)"


HELPED = [[], ["erase"], ["generate"], ["methods"], ["canvas"], ["canvas", "check"]]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", HELPED, ids=" ".join)
def test_help_fits_and_speaks_no_python(
    command: list[str], width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, said = ended(capsys, *command, "--help")
    assert (code, said) == (0, "")
    assert all(len(line) <= width for line in out.splitlines())
    assert "<" not in out.replace("<=x<=", "").replace("<=x", "") and "…" not in out
    assert "([])" not in out, "square brackets are markup: escape them"


def test_the_options_of_erase_come_in_groups(capsys: pytest.CaptureFixture[str]):
    _, out, _ = ended(capsys, "erase", "--help")
    titles = ("What to erase", "How", "Where it goes", "This machine")
    places = [out.index(f"─ {title} ─") for title in titles]
    assert places == sorted(places)
    assert places[0] < out.index("--concept") < places[1] < out.index("--method") < places[2]
    assert places[2] < out.index("--out") < places[3] < out.index("--device")


# processes: a pipe, a full disk and a signal are no matter of one


def shell(command: str, **more: str) -> subprocess.CompletedProcess[str]:
    words = [
        "bash",
        "-c",
        f"set -o pipefail; {command.replace('unlearnkit', f'{sys.executable} -m unlearnkit')}",
    ]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **more}, timeout=120)


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("unlearnkit methods | head -1", 0, ""),
        ("unlearnkit --help | true", 0, ""),
        ("unlearnkit methods >&-", 2, "the output cannot be written: it is closed\n"),
        ("unlearnkit --version >&-", 2, "the output cannot be written: it is closed\n"),
        ("unlearnkit methods nothing 2>&1 >&- | true", 2, ""),
        ("unlearnkit methods > /dev/full", 2, "the output cannot be written: No space left on device\n"),
        ("PYTHONIOENCODING=ascii unlearnkit methods duge", 0, ""),
    ],
)
def test_a_reader_who_leaves_early_ends_nothing_badly(command: str, code: int, says: str):
    done = shell(command)
    assert (done.returncode, done.stderr) == (code, says)


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="a background shell: interrupts are ignored"
)
def test_an_interrupt_is_130_and_one_line(tmp_path: Path):
    said = tmp_path / "said.err"
    process = forked(lambda: main(["canvas", "check", "--out", str(tmp_path / "check")]), said)
    while not (said.exists() and said.stat().st_size):  # its progress, so that it is at work
        time.sleep(0.01)
    os.kill(process, signal.SIGINT)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == 130, said.read_text()
    assert said.read_text().splitlines()[-1] == "stopped"
    assert "Traceback" not in said.read_text()
