"""Build the source archive and the wheel: the same files give the same bytes, wherever and whenever that is done.

All dates are SOURCE_DATE_EPOCH; without it that of the last commit, or in an unpacked source archive the one it was
built with. Permissions are 644 and 755, the order is that of the names, and the wheel is built from the source archive.
The bytes also depend on the versions of setuptools and zlib: scripts/environment installs the former.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE = ("build", "dist", "runs", "PKG-INFO", "setup.cfg")  # at the top
ALIEN = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "*.pyc")


def build(source: Path, into: Path) -> dict[str, str]:
    """Write the source archive and the wheel of ``source`` into ``into``; returns their names and SHA-256 sums."""
    epoch = dated(source)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tree, made = Path(scratch) / "tree", Path(scratch) / "made"
        made.mkdir()
        copied(source, tree)
        archive = into / call("build_sdist", tree, made, epoch)
        settled(made / archive.name, archive, epoch)
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        wheel = into / call("build_wheel", Path(scratch) / archive.name.removesuffix(".tar.gz"), made, epoch)
        shutil.move(made / wheel.name, wheel)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (archive, wheel)}


def dated(source: Path) -> int:
    """The seconds since 1970 that everything is dated with."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    if (source / ".git").exists():
        asked = ["git", "-C", str(source), "log", "-1", "--format=%ct"]
        return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    return int((source / "pyproject.toml").stat().st_mtime)


def copied(source: Path, tree: Path) -> None:
    """Copy what git tracks, or where there is no git all but hidden and built files, with plain permissions."""
    if (source / ".git").exists():
        asked = ["git", "-C", str(source), "ls-files", "-z"]
        names = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, tree / name)
            (tree / name).chmod(0o755 if os.access(source / name, os.X_OK) else 0o644)
        return

    def left_out(folder: str, names: list[str]) -> set[str]:
        return ALIEN(folder, names) | (set(MADE) & set(names) if Path(folder) == source else set())

    shutil.copytree(source, tree, ignore=left_out, copy_function=shutil.copyfile)
    for path in tree.rglob("*"):
        runs = path.is_dir() or (source / path.relative_to(tree)).stat().st_mode & 0o100
        path.chmod(0o755 if runs else 0o644)


def call(step: str, tree: Path, made: Path, epoch: int) -> str:
    """Let setuptools carry out one step in a process of its own; returns the name of the file."""
    code = f"from setuptools import build_meta as b; print(b.{step}({str(made)!r}))"
    fixed = {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    asked = {"cwd": tree, "env": os.environ | fixed, "umask": 0o022}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **asked)
    if done.returncode:
        sys.exit(f"{step} failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def settled(archive: Path, into: Path, epoch: int) -> None:
    """Write a tar.gz once more: members by name, nobody's, of one date."""
    with (
        tarfile.open(archive) as old,
        into.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, member.size, epoch
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)


def main() -> None:
    words = argparse.ArgumentParser(
        description="Build the source archive and the wheel, the same bytes every time."
    )
    words.add_argument(
        "--out", type=Path, default=Path("dist"), help="the folder for both files; default dist"
    )
    words.add_argument("--twice", action="store_true", help="build a second time and compare")
    told = words.parse_args()
    sums = build(ROOT, told.out)
    for name, digest in sums.items():
        print(f"{digest}  {told.out / name}")
    if told.twice:
        with tempfile.TemporaryDirectory() as other:
            if build(ROOT, Path(other)) != sums:
                sys.exit("the second build gave other bytes")
        print("the second build gave the same bytes")


if __name__ == "__main__":
    main()
