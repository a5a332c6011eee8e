"""Files are written whole, through no link, and by one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import killed

from unlearnkit.errors import InputError
from unlearnkit.io import manifest, tensors
from unlearnkit.io.files import LOCK, atomic_file, entries, member, new_folder, user_path, write_text
from unlearnkit.io.locks import locked


def test_a_link_at_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    for name in ("a", "a.part", ".a.part"):
        (tmp_path / name).symlink_to(tmp_path / "theirs")
    write_text(tmp_path / "a", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "ours" and not (tmp_path / "a").is_symlink()


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a") as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_new_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "a", "")
    with new_folder(tmp_path / "b"):
        pass
    (tmp_path / "folder").mkdir()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_members_of_a_folder_are_inside_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pictures").symlink_to(tmp_path)
    assert member(tmp_path / "run", "a", "b") == tmp_path / "run" / "a" / "b"
    for names in (("pictures",), ("pictures", "a"), ("..",), ("a/b",), ("/etc",), ("",)):
        with pytest.raises(InputError):
            member(tmp_path / "run", *names)


@pytest.mark.parametrize("name", ["é" * 200, "a\0b", "x" * 300, "not UTF-8 \udcff"])
def test_a_name_that_no_file_system_takes_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        user_path(tmp_path / name)


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs") == tmp_path / "runs"


HOLD = """
import sys
from pathlib import Path
from unlearnkit.io.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_which_one_holds_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        for _ in range(2):  # asking changes nothing
            with pytest.raises(InputError, match=f"another process \\({other.pid} on "), locked(folder):
                pass
        other.kill()
    with locked(folder):  # a lock dies with its process
        pass


def test_what_killed_processes_left_is_removed_under_the_lock(tmp_path: Path) -> None:
    (tmp_path / ".unlearnkit-x.part").mkdir()
    (tmp_path / ".unlearnkit-x.part" / "a").touch()
    (tmp_path / ".unlearnkit-y.part").touch()
    with locked(tmp_path):
        assert entries(tmp_path) == [] and {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_a_users_hidden_part_stays(tmp_path: Path) -> None:
    (tmp_path / ".holiday.part").mkdir()
    (tmp_path / ".download.part").touch()
    with locked(tmp_path):
        pass
    write_text(tmp_path / "a", "ours")
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, "a", ".holiday.part", ".download.part"}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_in_a_folder_of_the_user_goes_with_the_next_one(tmp_path: Path) -> None:
    def half() -> None:
        with atomic_file(tmp_path / "a", new=True) as partial:
            partial.write_text("half")
            die()

    def half_a_folder() -> None:
        with new_folder(tmp_path / "b") as partial:
            (partial / "c").write_text("half")
            die()

    (tmp_path / ".theirs.part").write_text("a download")
    for run in (half, half_a_folder):
        killed(run)
        assert len(list(tmp_path.glob(".*.part"))) == 2
        with atomic_file(tmp_path / run.__name__, new=True) as partial:
            partial.write_text("whole")
        assert [path.name for path in tmp_path.glob(".*.part")] == [".theirs.part"]
    killed(half)
    with new_folder(tmp_path / "b"):
        pass
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".theirs.part"]


WRITE = """
import sys
from pathlib import Path
from unlearnkit.io.files import atomic_file
with atomic_file(Path(sys.argv[1])) as partial:
    partial.write_text("theirs")
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_what_another_process_writes_just_now_stays(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, tmp_path / "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout and other.stdout.readline() == b"begun\n"
        with locked(tmp_path), new_folder(tmp_path / "b"):
            write_text(tmp_path / "c", "ours")
        other.communicate(timeout=60)
    assert (tmp_path / "a").read_text() == "theirs"
    assert not list(tmp_path.glob(".*.part"))


def test_a_new_file_never_replaces_one_that_came_at_the_last_moment(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"), atomic_file(tmp_path / "a", new=True) as partial:
        partial.write_text("ours")
        (tmp_path / "a").write_text("theirs")
    with pytest.raises(InputError, match="exists already"), new_folder(tmp_path / "b"):
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "c").write_text("theirs")
    assert [path.read_text() for path in (tmp_path / "a", tmp_path / "b" / "c")] == ["theirs"] * 2
    assert not list(tmp_path.glob(".*"))


def test_weights_that_are_killed_leave_nothing_that_counts(tmp_path: Path) -> None:
    """safetensors writes to a temporary file of its own, beside the one that it is given."""
    weights = {"a": torch.ones(20_000_000)}
    child = os.fork()
    if child == 0:
        try:
            while True:
                tensors.write(tmp_path / "a.safetensors", weights, {})
        finally:
            os._exit(1)
    while not list(tmp_path.rglob(".tmp*")):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert {path.name for path in entries(tmp_path)} <= {"a.safetensors"}
    assert set(manifest.contents(tmp_path)) <= {"a.safetensors"}
    with locked(tmp_path):
        assert not list(tmp_path.rglob(".tmp*"))


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / LOCK).symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="symbolic link"), locked(tmp_path):
        pass
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / LOCK).is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_at_the_place_of_the_lock_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(InputError, match="no regular file"), locked(tmp_path):
        pass
