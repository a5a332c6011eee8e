"""What is installed and what is handed out: hashes for every package, archives that come out the same, licences."""

from __future__ import annotations

import importlib.util
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LISTS = ("constraints-hashed.txt", "scripts/tools.txt", "scripts/docs.txt")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(name: str) -> dict[str, list[tuple[Requirement, int]]]:
    """A list's requirements by name, each with how many hashes it has."""
    found: dict[str, list[tuple[Requirement, int]]] = {}
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.M).replace("\\\n", " ")
    for line in text.splitlines():
        requirement, *hashes = re.split(r"\s+--hash=sha256:(?=[0-9a-f]{64}\b)", line.strip())
        found.setdefault(plain(Requirement(requirement).name), []).append(
            (Requirement(requirement), len(hashes))
        )
    return found


def needed(name: str, extras: tuple[str, ...]) -> set[str]:
    """What an installed package with these extras needs here, all the way down."""
    seen: set[tuple[str, str]] = set()
    waiting = [(name, extra) for extra in ("", *extras)]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for wanted in map(Requirement, metadata.requires(one[0]) or ()):
            if wanted.marker is None or wanted.marker.evaluate({"extra": one[1]}):
                waiting += [(plain(wanted.name), extra) for extra in ("", *wanted.extras)]
    return {one for one, _ in seen}


@pytest.mark.parametrize("name", LISTS)
def test_every_package_of_a_list_has_one_version_and_hashes_and_no_host(name: str) -> None:
    assert "://" not in (ROOT / name).read_text(encoding="utf-8")
    for key, versions in pinned(name).items():
        for requirement, hashes in versions:
            assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), key
            assert hashes, f"{key} has no hash"


def test_the_hashed_list_has_the_versions_that_were_tested() -> None:
    hashed = pinned("constraints-hashed.txt")
    for key, [(requirement, _)] in pinned("constraints.txt").items():
        if key != "torch":
            assert [one.specifier for one, _ in hashed[key]] == [requirement.specifier], "run scripts/lock"
    assert "torch" not in hashed, "its builds of one version have different hashes"
    assert pinned("constraints.txt")["torch"]


def test_the_hashed_list_has_all_that_the_scripts_need() -> None:
    lists = pinned("constraints-hashed.txt")
    own = ("torch", "triton", "nvidia-", "cuda-")  # PyTorch and its builds' own libraries
    wanted = needed("unlearnkit", ("test", "check")) - {"unlearnkit"}
    assert len(wanted) > 60
    assert {one for one in wanted if not one.startswith(own)} - set(lists) == set(), "run scripts/lock"


def cut(tree: Path) -> Path:
    """A copy of what is built, with weights of no bytes: packing them takes most of the time."""
    keep = shutil.ignore_patterns(".*", "__pycache__", "*.safetensors", "*.png", "*.jsonl", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=keep, copy_function=shutil.copyfile)
    for path in (ROOT / "unlearnkit").rglob("*.safetensors"):
        (tree / path.relative_to(ROOT)).touch()
    (tree / "scripts" / "build").chmod(0o755)
    return tree


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        sums = script("build").build(cut(folder / "tree"), folder / "dist")
    return folder, sums


def test_a_second_build_gives_the_same_bytes_elsewhere_at_another_time(
    archives: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sums = archives
    tree = tmp_path / "another place"
    shutil.copytree(
        folder / "tree", tree, copy_function=shutil.copyfile
    )  # with dates and permissions of its own
    for path in tree.rglob("*"):
        path.chmod(0o700 if path.is_dir() or path == tree / "scripts" / "build" else 0o600)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert script("build").build(tree, tmp_path / "dist") == sums


def test_the_wheel_has_licences_data_and_nothing_else(archives: tuple[Path, dict[str, str]]) -> None:
    folder, sums = archives
    with zipfile.ZipFile(folder / "dist" / next(name for name in sums if name.endswith(".whl"))) as wheel:
        names = wheel.namelist()
        assert {info.date_time for info in wheel.infolist()} == {(2023, 11, 14, 22, 13, 20)}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"unlearnkit"}
    licences = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "LICENSES/OFL-1.1.txt"}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "unlearnkit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("unlearnkit/")} == package


def test_the_source_archive_has_what_the_tests_and_scripts_need(
    archives: tuple[Path, dict[str, str]],
) -> None:
    folder, sums = archives
    with tarfile.open(folder / "dist" / next(name for name in sums if name.endswith(".tar.gz"))) as tar:
        members = tar.getmembers()
    assert {member.mtime for member in members} == {1700000000}
    assert {stat.S_IMODE(member.mode) for member in members} == {0o644, 0o755}
    names = {member.name.partition("/")[2] for member in members if member.isfile()}
    source = {
        str(path.relative_to(folder / "tree")) for path in (folder / "tree").rglob("*") if path.is_file()
    }
    assert source - names == set(), "MANIFEST.in lacks these"


def test_a_package_that_was_not_looked_up_is_not_called_safe(capsys: pytest.CaptureFixture[str]) -> None:
    judged = script("audit").judged
    good, bad = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}
    hole = {"name": "c", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
    assert [judged(found) for found in ([good], [good, bad], [], [good, hole], [bad, hole])] == [
        0,
        2,
        2,
        1,
        1,
    ]
    printed = capsys.readouterr()
    assert "1 of 2 packages were not audited" in printed.err
    assert "c 1: X-1, mended in 2" in printed.out


@pytest.mark.slow
def test_the_whole_package_comes_out_the_same_twice(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "build.py"), "--out", str(tmp_path), "--twice"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
