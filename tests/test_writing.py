"""Files are written whole, through no link, and by one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import killed

from unlearnkit.errors import InputError
from unlearnkit.files import LOCK, locked, member, new_folder, swept, there, user_path, whole, write_text


def test_a_link_at_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    for name in ("a", "a.part", ".a.part"):
        (tmp_path / name).symlink_to(tmp_path / "theirs")
    write_text(tmp_path / "a", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "ours" and not (tmp_path / "a").is_symlink()


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "a") as partial:
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


@pytest.mark.parametrize("name", ["é" * 200, "a\0b", "x" * 300])
def test_a_name_that_no_file_system_takes_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        user_path(tmp_path / name)


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs") == tmp_path / "runs"


HOLD = """
import sys
from pathlib import Path
from unlearnkit.files import locked
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
    (tmp_path / ".x.part").mkdir()
    (tmp_path / ".x.part" / "a").touch()
    (tmp_path / ".y.part").touch()
    with locked(tmp_path):
        assert there(tmp_path) == [] and {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_only_what_nobody_writes_any_more_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"

    def dies() -> None:
        with whole(path) as partial:
            partial.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    killed(dies)
    (tmp_path / "theirs.part").touch()  # of a download, say
    (left,) = tmp_path.glob(".*.part")
    with whole(path) as partial, whole(tmp_path / "b") as other:
        partial.write_text("whole")
        other.touch()
        swept(path)
        assert partial.exists() and other.exists() and not left.exists()
    assert {one.name for one in tmp_path.iterdir()} == {"a.safetensors", "b", "theirs.part"}


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / LOCK).symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="symbolic link"), locked(tmp_path):
        pass
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / LOCK).is_symlink()
