"""Files for releases of transformers before 5: longer names of weights, and tokenizers in several files.

These releases fill a weight with random numbers if they do not find its name. So a saved pipeline has the names that
all releases read, as published models do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..io.reading import read_bytes, read_json
from ..io.tensors import renamed

__all__ = ["add", "longer_names", "pieces"]

# classes whose names transformers 5 shortens: the short prefix and the long one
LONGER = {
    "CLIPTextModel": ("", "text_model."),
    "StableDiffusionSafetyChecker": ("vision_model.", "vision_model.vision_model."),
}
SENTENCES = "spiece.model"
VOCABULARY, MERGES, ADDED = "vocab.json", "merges.txt", "added_tokens.json"


def add(part: Any, folder: Path) -> None:
    """Give a component that was saved into ``folder`` the names and files of older releases."""
    if hasattr(part, "vocab_files_names"):
        _vocabulary(part, folder)
    if type(part).__name__ in LONGER:
        longer_names(folder, *LONGER[type(part).__name__])


def longer_names(folder: Path, front: str, longer: str) -> None:
    """Name the weights as transformers 4 does."""

    def longer_name(name: str) -> str:
        short = name.startswith(front) and not name.startswith(longer)
        return longer + name.removeprefix(front) if short else name

    for file in folder.glob("*.safetensors"):
        renamed(file, longer_name)
    for file in folder.glob("*.safetensors.index.json"):
        index = read_json(file, what="index", kind=dict)
        index["weight_map"] = {longer_name(name): shard for name, shard in index["weight_map"].items()}
        file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _vocabulary(tokenizer: Any, folder: Path) -> None:
    """Add the files of older tokenizers to ``tokenizer.json``: transformers 4 opens CLIP's only with these."""
    if not (folder / "tokenizer.json").is_file():
        return
    whole = read_json(folder / "tokenizer.json", what="tokenizer", kind=dict)
    inside = whole["model"]
    if inside.get("type") == "Unigram":
        _sentences(tokenizer, [piece for piece, _ in inside["vocab"]], folder)
    if inside.get("type") != "BPE" or MERGES not in tokenizer.vocab_files_names.values():
        return
    known = inside["vocab"]
    added = {one["content"]: one["id"] for one in whole["added_tokens"] if one["content"] not in known}
    pairs = [one if isinstance(one, str) else " ".join(one) for one in inside["merges"]]
    texts = {
        VOCABULARY: json.dumps(known, ensure_ascii=False),
        MERGES: "\n".join(["#version: 0.2", *pairs, ""]),
        ADDED: json.dumps(added, ensure_ascii=False) if added else "",
    }
    for file, text in texts.items():
        if text and not (folder / file).exists():
            (folder / file).write_text(text, encoding="utf-8", newline="\n")


def _sentences(tokenizer: Any, known: Sequence[str], folder: Path) -> None:
    """Add the SentencePiece file from the tokenizer's own folder, if it has the same pieces."""
    source = Path(str(tokenizer.name_or_path)) / SENTENCES
    if not source.is_file() or (folder / SENTENCES).exists():
        return
    data = read_bytes(source, what="tokenizer", error=ModelError)
    stored = pieces(data)
    if stored and stored == known[: len(stored)]:
        (folder / SENTENCES).write_bytes(data)


def pieces(data: bytes) -> list[str]:
    """The pieces in a SentencePiece file, which are field 1 of a protobuf message; empty for other files."""
    try:
        inner = [value for number, value in _fields(data) if number == 1]
        return [next(value for number, value in _fields(one) if number == 1).decode() for one in inner]
    except (IndexError, StopIteration, ValueError):
        return []


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """The fields of a protobuf message with bytes: their numbers and bytes."""
    fields, position = [], 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position, value, shift = position + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while position < len(data):
        field, kind = divmod(number(), 8)
        if kind == 0:
            number()
            continue
        if kind not in (1, 2, 5):
            raise ValueError(kind)
        size = {1: 8, 5: 4}[kind] if kind != 2 else number()
        if position + size > len(data):
            raise ValueError(size)
        fields.append((field, data[position : position + size]))
        position += size
    return fields
