"""Bounds on a component's configuration, checked before anything of that size is built."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

from ..errors import ModelError, quoted

__all__ = ["check_config", "check_shards"]

LARGEST = 2**27  # whole numbers in a network's settings: a vocabulary, a width
STEPS = 2**17  # whole numbers in a scheduler's settings, and entries of its lists
ENTRIES = 1024  # of a list in a network's settings
# numbers of a network's building blocks, which are built before its weights are read
COUNTS, MANY = re.compile(r"layers|blocks|depth|heads|per_block"), 1024
LAYERS = ("num_hidden_layers", "num_layers")  # at least one
CLIPPED = "lambda_min_clipped"  # of a scheduler, which may be minus infinity
SIDES, SIDE = ("sample_size", "image_size", "pos_embed_max_size", "crop_size", "base_size"), 2048
TRANSFORMER_SIDE = 512  # each position of which has a vector
# settings with which loaders run code or open other files
CODE = ("auto_map", "custom_pipelines", "trust_remote_code", "transformers_weights", "kernel_config")
ATTENTION = re.compile(r"eager|sdpa|flash_attention_\d|flex_attention")
SHARD = re.compile(r"[\w.-]+\.safetensors", re.ASCII)


def check_config(config: dict[str, Any], path: Path, kind: Any) -> None:
    """Raise ModelError for settings that ask for code or quantised weights, and for impossible sizes.

    kind: the component's class.
    """
    scheduler = path.name == "scheduler_config.json"
    _check_types(config, path, kind)
    if config.get("quantization_config"):
        raise ModelError(f"{quoted(path)} is of quantised weights: load them in float32, bfloat16 or float16")
    side = TRANSFORMER_SIDE if path.parent.name == "transformer" else SIDE
    for name, value in _values(config):
        if name.endswith("_implementation"):
            texts = [value] if isinstance(value, str) else [one for _, one in _values([value])]
            code = any(isinstance(one, str) and not ATTENTION.fullmatch(one) for one in texts)
        else:
            code = name in CODE and bool(value)
        if code:
            raise ModelError(
                f"{quoted(path)} asks for code of its own ({quoted(name)} is {quoted(value)}), which is never run"
            )
        if name in LAYERS and isinstance(value, int) and value < 1:
            raise ModelError(
                f"{quoted(path)} has {quoted(value)} for {name!r}: a network has one layer or more"
            )
        if isinstance(value, float) and not math.isfinite(value) and name != CLIPPED:
            raise ModelError(f"{quoted(path)} has {value} for {quoted(name)}: a finite number belongs there")
        if name == "scaling_factor" and value == 0:
            raise ModelError(f"{quoted(path)} has 0 for {name!r}: latents are divided by it")
        if isinstance(value, list):
            size, most, unit = len(value), STEPS if scheduler else ENTRIES, "entries"
        elif isinstance(value, int) and not isinstance(value, bool):
            largest = MANY if COUNTS.search(name) else side if name in SIDES else LARGEST
            size, most, unit = abs(value), STEPS if scheduler else largest, "as the size"
        else:
            continue
        if size > most:
            raise ModelError(
                f"{quoted(path)} has {size:,} {unit} in {quoted(name)}: at most {most:,} make sense"
            )


def _check_types(config: dict[str, Any], path: Path, kind: Any) -> None:
    """Raise ModelError for text where the class has a number, and for a U-Net or transformer without a size."""
    for name, known in signature(kind.__init__).parameters.items():
        number = isinstance(known.default, int | float) and not isinstance(known.default, bool)
        if number and isinstance(config.get(name), str | dict):
            raise ModelError(
                f"{quoted(path)} has {quoted(config[name])} for {name!r}: a number belongs there"
            )
        if name == "sample_size" and (path.parent.name == "unet" or name in config):
            size = config.get(name)
            sides = size if isinstance(size, list) and len(size) == 2 else [size]
            if not all(isinstance(side, int) and side >= 1 for side in sides):
                raise ModelError(
                    f"{quoted(path)} has {quoted(size)} for {name!r}: a whole number belongs there"
                )


def check_shards(listed: dict[str, Any], path: Path) -> None:
    """Raise ModelError for a list of shards that names anything but files of weights in the same folder."""
    shards = listed.get("weight_map")
    if not isinstance(shards, dict):
        raise ModelError(f"{quoted(path)} is damaged: 'weight_map' is {quoted(shards)}, not a table")
    for name in {quoted(value): value for value in shards.values()}.values():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise ModelError(
                f"{quoted(path)} names {quoted(name)}, which is no file of weights in the same folder"
            )


def _values(data: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value at any depth, with the name it belongs to."""
    inner = data.items() if isinstance(data, dict) else ((name, one) for one in data)
    for key, value in inner:
        yield key, value
        if isinstance(value, dict | list):
            yield from _values(value, key)
