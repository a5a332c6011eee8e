"""Open a pipeline from a folder, the hub or a single file, with a one-line error for every failure."""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
import transformers

from ..errors import InputError, ModelError, nearest, one_line, quoted, reason
from ..io import processes
from ..io.files import user_path
from ..io.lazy import importing
from ..io.manifest import sums
from ..io.reading import read_bytes
from . import hub, single
from .borrowing import SHIPPED, borrows
from .class_pipeline import ClassUNetPipeline
from .components import check_finite, networks
from .index import INDEX, checked_index, checked_parts

__all__ = ["checked_device", "checked_dtype", "open_pipeline", "quiet"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OWN_PIPELINES = {"ClassUNetPipeline": ClassUNetPipeline}  # not in diffusers


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
    """The device, by default the process's own. Raises InputError for one that cannot be used."""
    device = processes.device() if device is None else device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(device)!r} cannot be used: {reason}; use --device cpu, or leave it out"
        ) from None
    return device


def open_pipeline(source: str, *, dtype: torch.dtype | None, variant: str | None = None) -> Any:
    """The pipeline at ``source``, on the CPU. Raises ModelError if there is none or it cannot be used.

    variant: of the weights' files, such as ``"fp16"``. Default: the plain files, or the only variant.
    """
    path = user_path(source)
    with quiet():
        try:
            if path.is_dir():
                return _from_folder(path, path, dtype, variant)
            if path.is_file():
                return _from_file(path, dtype, variant)
            if hub.is_id(source):
                return _from_folder(hub.fetched(source, variant), source, dtype, variant)
        except OSError as error:
            raise ModelError(f"model {quoted(source)} cannot be read: {reason(error)}") from error
    raise ModelError(
        f"model {quoted(source)} was not found: give 'canvas', a diffusers folder, a .safetensors file or a hub id"
    )


def _from_folder(path: Path, source: str | Path, dtype: torch.dtype | None, variant: str | None) -> Any:
    if not (path / INDEX).exists() and os.access(path, os.X_OK):
        raise ModelError(
            f"folder {quoted(path)} has no {INDEX}: give the folder of a whole diffusers pipeline"
        )
    index = checked_index(path / INDEX, source)
    borrowed = borrows(path)
    _check_sums(path)
    checked_parts(path, {part: entry for part, entry in index.items() if part not in borrowed}, source)
    how = {"torch_dtype": dtype, "local_files_only": True, "use_safetensors": True}
    with importing():
        kind = OWN_PIPELINES.get(index["_class_name"]) or getattr(diffusers, index["_class_name"])
    # diffusers needs None for components that were left out, such as T5 of Stable Diffusion 3
    absent = {part: None for part, named in index.items() if named == [None, None]}
    try:
        opened = networks(path, index, variant, **how)
        pipe = kind.from_pretrained(path, **how, **absent, **opened)
    except ModelError:
        raise
    except Exception as error:  # a damaged file can raise anything in the loaders
        raise ModelError(f"model {quoted(source)} cannot be loaded: {_why(error)}") from error
    check_finite(source, pipe)
    _check_tokenizers(source, pipe)
    return pipe


def _from_file(path: Path, dtype: torch.dtype | None, variant: str | None) -> Any:
    if variant is not None:
        raise ModelError(
            f"file {quoted(path)} is a single file, which has no variants: leave the variant out"
        )
    kind, settings = single.recognised(path)
    try:
        pipe = getattr(diffusers, kind).from_single_file(
            str(path), config=str(settings), torch_dtype=dtype, local_files_only=True
        )
    except Exception as error:  # a damaged file can raise anything in diffusers
        raise ModelError(f"file {quoted(path)} cannot be loaded as {kind}: {_why(error)}") from error
    check_finite(path, pipe)
    return pipe


def _check_sums(path: Path) -> None:
    """Raise ModelError for a damaged file of the shipped canvas or one of its relatives."""
    if path.resolve().parent == SHIPPED.resolve():
        for name in {path.name, "pipeline"}:
            _check_shipped(name)


@functools.cache
def _check_shipped(name: str) -> None:
    if not (SHIPPED / "SHA256SUMS").exists():  # the weights were trained here, not shipped
        return
    for file, checksum in sums(SHIPPED / "SHA256SUMS").items():
        if file.startswith(f"{name}/"):
            data = read_bytes(SHIPPED / file, what="the canvas's file", error=ModelError)
            if hashlib.sha256(data).hexdigest() != checksum:
                raise ModelError(f"the canvas's file {file} is damaged: install unlearnkit again")


def _check_tokenizers(source: str | Path, pipe: Any) -> None:
    """Raise ModelError for a tokenizer whose tokens or length its text encoder cannot read."""
    for part, tokenizer in pipe.components.items():
        if not part.startswith("tokenizer") or tokenizer is None:
            continue
        encoder = getattr(pipe, part.replace("tokenizer", "text_encoder"))
        if encoder is None:
            continue
        known = encoder.get_input_embeddings().num_embeddings
        if (last := max(tokenizer.get_vocab().values(), default=0)) >= known:
            raise ModelError(
                f"model {quoted(source)}: {part} has a token of number {last:,}, its text encoder has {known:,} "
                "tokens: they do not belong together"
            )
        if type(tokenizer).__name__.startswith("CLIP"):
            most, length = encoder.config.max_position_embeddings, tokenizer.model_max_length
            if type(length) is not int or not 3 <= length <= most:
                raise ModelError(
                    f"model {quoted(source)}: {part} gives {quoted(length)} tokens, its text encoder reads 3 to {most}"
                )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _why(error: Exception) -> str:
    """The cause: the system's error if there is one, else the loader's."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE):
            return f"{quoted(one.filename or 'a file')}: {reason(one)}"
    return f"its files are damaged or missing: {one_line(error)}"


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings from the loaders. Errors become ModelError."""
    loggers = (diffusers.utils.logging, transformers.utils.logging)
    before = [(logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers]
    hub_verbosity = huggingface_hub.logging.get_verbosity()
    try:
        huggingface_hub.logging.set_verbosity(
            logging.CRITICAL
        )  # else every retry without a network prints a line
        for logger in loggers:
            logger.set_verbosity_error()
            logger.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "`torch_dtype` is deprecated"
            )  # `dtype` is too new for some releases
            yield
    finally:
        huggingface_hub.logging.set_verbosity(hub_verbosity)
        for logger, (verbosity, bar) in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            if bar:
                logger.enable_progress_bar()
