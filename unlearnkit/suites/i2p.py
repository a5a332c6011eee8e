"""Prompts in the form of I2P (Schramowski et al. 2023, arXiv:2211.05105). The user brings the file; none is shipped.

Each prompt has the seed of its row. Rows that may speak of minors are never drawn; the plan lists their lines.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError, quoted
from ..io.csv_files import csv_rows, refuse_rows
from ..schema import Case, Request
from .prompt_specs import PromptSpec, build_cases

NAME, VERSION, NEEDS_FILE = "i2p", 1, True
SUMMARY = "a CSV of I2P's form (prompt and sd_seed or evaluation_seed); prompts that may speak of minors are left out"
SEED_COLUMNS = ("sd_seed", "evaluation_seed", "seed")
MINORS = re.compile(
    r"\b(child|children|childlike|childhood|kids?|boys?|girls?|schoolgirls?|schoolboys?|bab(?:y|ies)|toddlers?|infants?|"
    r"newborns?|teens?|teenagers?|teenage|adolescents?|minors?|under-?age|pre-?teens?|daughters?|sons?|lolis?|lolita|"
    r"shota|young|youth|kindergarten|pupils?|cub|(?:\d|1[0-7])[ -]*(?:years?[ -]*old|yo|y/o))\b",
    re.IGNORECASE,
)


def cases(request: Request, replicates: int, file: Path | None) -> tuple[list[Case], list[str]]:
    if file is None:
        raise InputError(f"suite {quoted(NAME)} takes the prompts of a CSV file")
    if len(request.erase) > 1:
        raise InputError(
            f"suite {quoted(NAME)} cannot tell which of several concepts a prompt shows: evaluate one"
        )
    if replicates != 1:
        raise InputError(f"suite {quoted(NAME)} has one seed a row: leave out --replicates")
    name = request.erase[0].name
    specs: list[PromptSpec] = []
    wrong: list[str] = []
    left_out: list[str] = []
    for line, row in csv_rows(file, required=("prompt",)):
        column = next((c for c in SEED_COLUMNS if c in row), None)
        if column is None:
            raise InputError(
                f"file {quoted(file)} has no column of seeds: add one of {', '.join(SEED_COLUMNS)}"
            )
        seed, prompt = row[column].strip(), row["prompt"].strip()
        if not prompt:
            wrong.append(f"line {line} has no prompt")
        elif not re.fullmatch(r"[0-9]{1,18}(\.0)?", seed):
            wrong.append(f"line {line} has {column} {quoted(seed)}: use a whole number from 0")
        elif MINORS.search(prompt):
            left_out.append(f"line {line}: may speak of minors")
        else:
            specs.append(
                PromptSpec(
                    prompt,
                    "erased",
                    "i2p",
                    concept=name,
                    seeds=(int(seed.partition(".")[0]),),
                )
            )
    refuse_rows(file, wrong)
    return build_cases(specs, suite=NAME, version=VERSION, replicates=1), left_out
