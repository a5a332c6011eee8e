"""The command ``unlearnkit doctor``: what is installed, what is missing and for what, and whether the canvas works."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import UnlearnError, reason
from .output import answer
from .terminal import out

__all__ = ["EXTRAS", "doctor"]

EXTRAS = {  # of pyproject.toml: modules, and what they are needed for
    "studio": (("starlette", "uvicorn"), "unlearnkit studio"),
    "nudenet": (("onnxruntime",), "evaluate and attack with --nudenet"),
    "sweep": (("submitit",), "sweep with --workers or --engine slurm"),
    "bench": (("matplotlib",), "the plot of sweep, and the pictures of benchmarks/"),
}
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "scipy", "pillow")
ROOM = 2e9  # bytes free, below which runs soon fail


@dataclass(frozen=True)
class Finding:
    """One line. state: ``missing`` is no fault; ``wrong`` is one."""

    name: str
    state: Literal["ok", "missing", "wrong"]
    text: str


def doctor() -> None:
    """Show versions, GPU, memory, disk and missing extras, and check the canvas; exit code 1 if anything is wrong.

    [bold]unlearnkit doctor[/bold]
    """
    found = list(_findings())
    wrong = [one.name for one in found if one.state == "wrong"]
    answer({"wrong": wrong, "findings": found})
    for one in found:
        out.print(f"{one.state if one.state != 'ok' else '':<8}{one.name:<14}{one.text}", markup=False)
    sys.exit(1 if wrong else 0)


def _findings() -> Iterator[Finding]:
    from ..version import __version__

    yield Finding("unlearnkit", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield from _libraries()
    if importlib.util.find_spec("torch"):
        yield from _devices()
    yield from _disks()
    for extra, (modules, needed) in EXTRAS.items():
        missing = [name for name in modules if not importlib.util.find_spec(name)]
        text = f"needed for {needed}: pip install 'unlearnkit[{extra}]'" if missing else f"for {needed}"
        yield Finding(f"extra {extra}", "missing" if missing else "ok", text)
    yield from _canvas()


def _libraries() -> Iterator[Finding]:
    """The versions, and which are older than pyproject.toml asks for."""
    from packaging.requirements import Requirement

    required: dict[str, Requirement] = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a plain clone
        for line in importlib.metadata.requires("unlearnkit") or ():
            one = Requirement(line)
            if one.marker is None:
                required[one.name] = one
    for name in LIBRARIES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "wrong", f"is not installed: pip install {name}")
            continue
        fits = name not in required or required[name].specifier.contains(version, prereleases=True)
        need = "" if fits else f", but {required[name].specifier} is needed"
        yield Finding(name, "ok" if fits else "wrong", version + need)


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            yield Finding(f"cuda:{number}", "ok", f"{name}, {_size(free)} of {_size(total)} free")
    else:
        build = f"this PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
        yield Finding("GPU", "missing", f"none that PyTorch can use ({build}); everything also runs without")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("CPU", "ok", f"{cores} cores, PyTorch uses {torch.get_num_threads()}")
    if free_total := _memory():
        yield Finding("memory", "ok", f"{_size(free_total[0])} of {_size(free_total[1])} free")


def _disks() -> Iterator[Finding]:
    from ..data.pictures import default_folder
    from ..io.files import existing

    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    for name, folder in (("this folder", Path.cwd()), ("cache", default_folder()), ("hub's cache", hub)):
        try:
            place = existing(folder)
            free = shutil.disk_usage(place).free
        except OSError as error:
            yield Finding(name, "wrong", f"{folder}: {reason(error)}")
            continue
        used = (
            sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if name == "cache" else 0
        )
        text = f"{folder}: {_size(free)} free" + (f", {_size(used)} used" if used else "")
        if not os.access(place, os.W_OK):
            yield Finding(name, "wrong", f"{text}; it cannot be written")
        else:
            yield Finding(name, "ok" if free > ROOM else "wrong", text)


def _canvas() -> Iterator[Finding]:
    """Whether the shipped weights have their hashes, and the canvas can draw."""
    from ..io.manifest import file_hash, sums
    from ..model.places import CANVAS

    folder, wrong = CANVAS.parent, []
    try:
        every = sums(folder / "SHA256SUMS")
    except OSError as error:
        yield Finding("canvas", "wrong", f"its list of hashes cannot be read: {reason(error)}")
        return
    for name, digest in every.items():
        with contextlib.suppress(OSError):
            if file_hash(folder / name) == digest:
                continue
        wrong.append(name)
    if wrong:
        text = f"{len(wrong)} of {len(every)} files are not those that were shipped, such as {wrong[0]}: install again"
        yield Finding("canvas", "wrong", text)
        return
    try:
        from ..model.load import load

        load("canvas", device="cpu").sample(["a picture of a cat"], [0], steps=1)
    except (UnlearnError, ImportError) as error:
        yield Finding("canvas", "wrong", f"cannot be opened: {' '.join(str(error).split())[:300]}")
        return
    yield Finding("canvas", "ok", f"opens and draws, and its {len(every)} files are those that were shipped")


def _memory() -> tuple[int, int] | None:
    """Free and all bytes of this machine's memory, where the system says so."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.M))
        return int(found["MemAvailable"]) * 1024, int(found["MemTotal"]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
    return None


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
