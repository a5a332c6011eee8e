"""What was made once and is read again: ledgers, edits, model folders; and the table of all readers."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

import saved
from fuzzing import COUNTS, box, chained, edited, evaluated, held, sealed_again
from oddities import altered, damaged
from texts import (
    GRAMMAR,
    HINTS,
    RECIPE,
    TRAINED,
    as_grammar,
    as_hints,
    as_prompts,
    as_recipe,
    lines,
    on_the_command_line,
    sheets,
    tables,
)
from unlearnkit.chain import ledger
from unlearnkit.io import manifest

# ledgers

READS = (["status"], ["log"], ["verify"], ["report"], ["undo", "--dry-run"], ["drop", "1", "--dry-run"])


@st.composite
def ledgers(draw: Any) -> tuple[bytes, bytes | None, list[str]]:
    """What ledger.jsonl and head.json hold, and the command that reads them; sealed again, or simply damaged."""
    file = chained() / ledger.LEDGER
    after = draw(st.sampled_from(READS))
    if not draw(st.integers(0, 2)):
        return draw(damaged(file.read_bytes())), None, after
    entries: list[ledger.Entry] = []
    number = draw(st.integers(0, 3))
    for place, line in enumerate(file.read_text().splitlines()):
        entry = json.loads(line)
        facts = draw(altered(entry["facts"])) if place == number else entry["facts"]
        kind = draw(st.sampled_from([entry["kind"]] * 8 + ["init", "add", "undo", "drop", "x", ""]))
        try:
            entries.append(ledger.new_entry(entries, kind, facts))
        except (ValueError, RecursionError):  # no ledger holds NaN, and none is written so deep
            reject()
    text = "".join(ledger._plain(dataclasses.asdict(entry)) + "\n" for entry in entries)
    return text.encode(), ledger._head(entries[-1]).encode(), after


def as_ledger(given: tuple[bytes, bytes | None, list[str]]) -> None:
    lines, head, (word, *more) = given
    shutil.copytree(chained(), "chain")
    (Path("chain") / ledger.LEDGER).write_bytes(lines)
    if head is not None:
        (Path("chain") / ledger.HEAD).write_bytes(head)
    held("chain", word, "chain", *more, may_write=("report.html",))


# evaluations

SEALED = ("tables.json", "plan.json", "cases.jsonl", "rows.jsonl", "evaluation.json", "run.json")
COMMANDS = (["verify", "run"], ["report", "run"], ["compare", "run", "run", "--out", "page"])


@st.composite
def evaluations(draw: Any) -> tuple[str, str, list[str]]:
    """A file of an evaluation that was changed by hand and its new text, and the command that reads it."""
    name = draw(st.sampled_from(SEALED))
    text = where(evaluated(), name).read_text()
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in text.split("\n")[:-1]]
        at = draw(st.integers(0, len(rows) - 1))
        rows[at] = draw(altered(rows[at]))
        return name, "".join(json.dumps(row) + "\n" for row in rows), draw(st.sampled_from(COMMANDS))
    return name, json.dumps(draw(altered(json.loads(text)))), draw(st.sampled_from(COMMANDS))


def where(run: Path, name: str) -> Path:
    return run / name if name == "run.json" else run / "evaluation" / "prompts-rows" / name


def as_evaluation(given: tuple[str, str, list[str]]) -> None:
    name, text, words = given
    shutil.copytree(evaluated(), "run", ignore=shutil.ignore_patterns("pipeline"))
    where(Path("run"), name).write_text(text)
    if name == "cases.jsonl":
        plan = where(Path("run"), "plan.json")
        whole = json.loads(plan.read_text())
        whole["cases"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        plan.write_text(json.dumps(whole))
    data = json.loads(text) if name in ("evaluation.json", "run.json") else None
    if isinstance(data, dict):
        where(Path("run"), name).write_text(manifest.dump(data))
    elif data is None:
        sealed_again(where(Path("run"), name).parent)
    held(*words, may_write=("run", "page"))


# edits


@st.composite
def edits(draw: Any) -> bytes:
    """An edit.safetensors with another header, or damaged."""
    whole = (edited() / "edit.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    how = draw(st.integers(0, 3))
    if how == 0:
        return draw(damaged(whole))
    if how == 1:  # the facts within
        name = next(iter(header["__metadata__"]))
        header["__metadata__"][name] = json.dumps(draw(altered(json.loads(header["__metadata__"][name]))))
        text = json.dumps(header).encode()
    elif how == 2:
        text = draw(damaged(whole[8 : 8 + size]))
    else:
        text = json.dumps(draw(altered(header))).encode()
    told = draw(st.sampled_from([len(text)] * 8 + [0, 1, size, len(text) + 1, 2**31, 2**63, 2**64 - 1]))
    return struct.pack("<Q", told) + text + body


def as_edit(data: bytes) -> None:
    Path("edit.safetensors").write_bytes(data)
    held("generate", "./none", "--prompt", "cat", "--edit", "edit.safetensors", "--out", "out")


# model folders


@functools.cache
def parts() -> tuple[str, ...]:
    """Every file of a model folder."""
    return tuple(
        str(path.relative_to(saved.folder())) for path in sorted(saved.folder().rglob("*")) if path.is_file()
    )


CLASSES = (
    *(
        ["diffusers", "UNet2DModel"],
        ["diffusers", "FluxTransformer2DModel"],
        ["transformers", "T5EncoderModel"],
    ),
    *(
        ["transformers", "BertModel"],
        ["helper", "Thing"],
        ["os", "system"],
        ["torch.nn", "Linear"],
        [None, None],
    ),
    *(["diffusers", "StableDiffusionPipeline"], ["diffusers"], [], None, 3, "x", {}),
)


@st.composite
def models(draw: Any) -> tuple[str, bytes | None]:
    """A file of a model folder and what it holds instead, None where it is missing."""
    name = draw(st.sampled_from(parts()))
    whole = (saved.folder() / name).read_bytes()
    if not draw(st.integers(0, 9)):
        return name, None
    if name == "model_index.json" and draw(st.booleans()):
        index = json.loads(whole)
        index[draw(st.sampled_from(sorted(index)))] = draw(st.sampled_from(CLASSES))
        return name, json.dumps(index).encode()
    if name.endswith(".json") and len(whole) < 10_000 and draw(st.integers(0, 3)):
        return name, json.dumps(draw(altered(json.loads(whole)))).encode()
    return name, draw(damaged(whole))


def as_model(given: tuple[str, bytes | None]) -> None:
    name, data = given
    shutil.copytree(saved.folder(), "model")
    file = Path("model") / name
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    Path("helper.py").write_text("open('it ran', 'w').close()")
    held("generate", "model", "--prompt", "cat", "--steps", "1", "--out", "out", may_write=("out",))
    assert not Path("it ran").exists(), "code of a model folder ran"


@dataclasses.dataclass(frozen=True)
class Reader:
    """given: what it makes. check: gives that to a command. few: cases of it in the normal suite."""

    given: Callable[[], st.SearchStrategy[Any]]
    check: Callable[[Any], None]
    few: int


READERS = {
    "command lines": Reader(lines, on_the_command_line, 150),
    "recipes": Reader(lambda: tables(RECIPE) | tables(TRAINED), as_recipe, 150),
    "grammars": Reader(lambda: tables(GRAMMAR), as_grammar, 150),
    "hints": Reader(lambda: tables(HINTS), as_hints, 100),
    "prompts": Reader(sheets, as_prompts, 150),
    "ledgers": Reader(ledgers, as_ledger, 150),
    "evaluations": Reader(evaluations, as_evaluation, 100),
    "edits": Reader(edits, as_edit, 150),
    "model folders": Reader(models, as_model, 20),
}


def tried(name: str, value: Any) -> None:
    """One case of a reader, in a box of its own."""
    COUNTS[name] += 1
    with box():
        READERS[name].check(value)
