"""Open a pipeline from a folder, the hub or a single file, with one clear line for everything that can go wrong."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from safetensors import safe_open
from torch import nn

from .. import processes
from ..errors import InputError, ModelError, nearest
from . import FAMILIES, supported
from .borrowing import borrowed, borrows
from .class_pipeline import ClassUNetPipeline

__all__ = ["checked_device", "checked_dtype", "open_pipeline", "quiet"]

INDEX = "model_index.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# by which diffusers, too, knows a single file of SDXL, and what such a file may hold without it and with it
XL = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
SINGLE = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
OWN = {"ClassUNetPipeline": ClassUNetPipeline}  # that diffusers does not know
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def checked_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype of this name. Raises InputError for an unknown one."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise InputError(
            f"dtype {dtype!r} is unknown{nearest(dtype, DTYPES)}: use one of {', '.join(DTYPES)}"
        )
    return DTYPES[dtype]


def checked_device(device: str | torch.device | None) -> str | torch.device:
    """The device, a process's own if none is named. Raises InputError for one that cannot be used."""
    device = processes.device() if device is None else device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {str(device)!r} cannot be used: {reason}") from None
    return device


def open_pipeline(source: str, *, dtype: torch.dtype | None) -> Any:
    """The pipeline at ``source``, on the CPU. Raises ModelError, in one line, where there is none that can be used."""
    path = Path(source).expanduser()
    with quiet():
        if path.is_dir():
            return _from_folder(path, dtype)
        if path.is_file():
            return _from_file(path, dtype)
        if HUB_ID.fullmatch(source) and not source.startswith("."):
            return _from_hub(source, dtype)
    raise ModelError(
        f"model {source!r} was not found: give 'canvas', a diffusers folder, a .safetensors file or a hub id"
    )


def _from_folder(path: Path, dtype: torch.dtype | None) -> Any:
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"folder {str(path)!r} has no {INDEX}: give the folder of a whole diffusers pipeline"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(path / INDEX)!r} cannot be read: {_line(error)}") from None
    _check_class(str(path), index)
    # transformers makes a tokenizer of three tokens where its files are missing
    lent = borrows(path)
    for part, wanted in index.items():
        files = [path / part / name for name in ("tokenizer.json", "vocab.json", "spiece.model")]
        own = part.startswith("tokenizer") and wanted[0] and part not in lent
        if own and not any(file.is_file() for file in files):
            raise ModelError(f"model {str(path)!r} is incomplete: its folder {part} is missing or empty")
    try:
        kind = OWN.get(index["_class_name"], DiffusionPipeline)
        how = {"torch_dtype": dtype, "local_files_only": True, "use_safetensors": True}
        # diffusers wants to be told again of what was left out, such as T5 of Stable Diffusion 3
        absent = {part: None for part, named in index.items() if named == [None, None]}
        pipe = kind.from_pretrained(path, **how, **absent, **borrowed(path, index, **how))
    except Exception as error:  # the loaders below raise whatever a damaged file makes them stumble over
        raise ModelError(
            f"model {str(path)!r} cannot be loaded, its files are damaged or missing: {_line(error)}"
        ) from error
    _check_whole(path, pipe)
    return pipe


def _from_file(path: Path, dtype: torch.dtype | None) -> Any:
    if path.suffix != ".safetensors":
        raise ModelError(
            f"file {str(path)!r} is not supported: convert it to .safetensors (pickled files can run code)"
        )
    kind = SINGLE[0]
    try:
        with safe_open(path, framework="pt") as stored:
            kind = SINGLE[XL in stored.keys()]  # noqa: SIM118 - it is no mapping
        pipe_class = getattr(diffusers, kind)
        return pipe_class.from_single_file(str(path), torch_dtype=dtype, local_files_only=_offline())
    except Exception as error:
        hint = (
            "; its configuration comes from the hub, and the hub is switched off here" if _offline() else ""
        )
        raise ModelError(f"file {str(path)!r} cannot be loaded as {kind}: {_line(error)}{hint}") from error


def _from_hub(source: str, dtype: torch.dtype | None) -> Any:
    try:
        index = DiffusionPipeline.load_config(source, local_files_only=_offline())
    except Exception as error:
        where = "in the local cache (the hub is switched off)" if _offline() else "on the hub"
        raise ModelError(f"model {source!r} is neither a path nor found {where}: {_line(error)}") from error
    _check_class(source, index)
    try:
        kind = OWN.get(index["_class_name"], DiffusionPipeline)
        local = _offline()
        return kind.from_pretrained(source, torch_dtype=dtype, local_files_only=local, use_safetensors=True)
    except Exception as error:
        raise ModelError(f"model {source!r} cannot be loaded from the hub: {_line(error)}") from error


def _check_class(source: str, index: Any) -> None:
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in [known for family in FAMILIES for known in family.PIPELINES]:
        raise ModelError(f"model {source!r} is a {name}, which is not supported: use one of {supported()}")


def _check_whole(path: Path, pipe: Any) -> None:
    """Raise ModelError where a loader left a weight without the value from its file."""
    for part, component in pipe.components.items():
        if not isinstance(component, nn.Module):
            continue
        for name, weight in component.named_parameters():
            if weight.device.type == "meta":
                raise ModelError(f"model {str(path)!r} is incomplete: {part} has no value for {name!r}")
    # transformers fills what is missing with random numbers, and may rename the front of a name
    for part, component in pipe.components.items():
        file = path / part / "model.safetensors"
        if not part.startswith("text_encoder") or not file.is_file():
            continue
        with safe_open(file, framework="pt") as stored:
            names = set(stored.keys())
        weights, found = component.state_dict(), set()
        for name, weight in weights.items():
            if any(known.endswith(name) or name.endswith(known) for known in names):
                found.add(weight.data_ptr())
        for name, weight in weights.items():  # tied weights are stored under one of their names
            if weight.data_ptr() not in found:
                raise ModelError(f"model {str(path)!r} is incomplete: {part} has no value for {name!r}")


def _offline() -> bool:
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "DIFFUSERS_OFFLINE")
    )


def _line(error: Exception, *, longest: int = 200) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else text[: longest - 1] + "…"


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and notes from the loaders: what matters becomes a ModelError."""
    loggers = (diffusers.utils.logging, transformers.utils.logging)
    found = [(one.get_verbosity(), one.is_progress_bar_enabled()) for one in loggers]
    try:
        for one in loggers:
            one.set_verbosity_error()
            one.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "`torch_dtype` is deprecated"
            )  # `dtype` is too new for some releases
            yield
    finally:
        for one, (verbosity, bar) in zip(loggers, found, strict=True):
            one.set_verbosity(verbosity)
            if bar:
                one.enable_progress_bar()
