"""The user's own prompts: a CSV file with a column ``prompt`` and optionally what a right picture shows.

prompt,role,form,object,style,concept,rest,seed,language
a photo of a cat on a sofa,erased,name,cat,,cat,a photo of a sofa,,
ein Foto von einer Katze,erased,name,cat,,cat,,,German
a photo of a dog on a sofa,near,name,dog,,,,,

A language makes its own form, "name in German": the grade "generalises" needs every language.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError, listed, nearest, quoted
from ..io.csv_files import csv_rows, refuse_rows
from ..schema import ROLES, Case, Request, Role
from .prompt_specs import PromptSpec, build_cases

NAME, VERSION, NEEDS_FILE = "prompts", 1, True
SUMMARY = "your own CSV: prompt, and optionally role, form, object, style, concept, rest, seed, language"
FORMS = 200  # of prompts, at most
COLUMNS = ("prompt", "role", "form", "object", "style", "concept", "rest", "seed", "language")


def cases(request: Request, replicates: int, file: Path | None) -> tuple[list[Case], list[str]]:
    if file is None:
        raise InputError(f"suite {quoted(NAME)} takes the prompts of a CSV file")
    names = {concept.name for concept in request.erase}
    only = next(iter(names)) if len(names) == 1 else ""
    specs: list[PromptSpec] = []
    wrong: list[str] = []
    for line, row in csv_rows(file, required=("prompt",)):
        if not specs and (odd := [name for name in row if name not in COLUMNS]):
            raise InputError(
                f"file {quoted(file)} has the unknown column {quoted(odd[0])}{nearest(odd[0], COLUMNS)}: use "
                f"{', '.join(COLUMNS)}"
            )
        row = {name: value.strip() for name, value in row.items()}
        role, seed = row.get("role") or "erased", row.get("seed", "")
        concept = (row.get("concept") or only) if role == "erased" else ""
        if not row["prompt"]:
            wrong.append(f"line {line} has no prompt")
        elif role not in ROLES:
            wrong.append(f"line {line} has role {quoted(role)}{nearest(role, ROLES)}: use {', '.join(ROLES)}")
        elif seed and not (re.fullmatch(r"[0-9]{1,19}", seed) and int(seed) < 2**63):
            wrong.append(f"line {line} has seed {quoted(seed)}: use 0 to 2**63 - 1, or leave it empty")
        elif role == "erased" and concept not in names:
            wrong.append(
                f"line {line} has concept {quoted(concept)}{nearest(concept, names)}: use {listed(sorted(names))}"
            )
        else:
            sort: Role = role  # type: ignore[assignment]
            seeds = (int(seed),) if seed else ()
            looks = (row.get("object", ""), row.get("style", ""), concept, row.get("rest", ""))
            form, language = row.get("form") or "name", row.get("language", "")
            form = f"{form} in {language}" if language else form
            specs.append(PromptSpec(row["prompt"], sort, form, *looks, seeds))
    refuse_rows(file, wrong)
    if not specs:
        raise InputError(f"file {quoted(file)} has no prompts: add rows under its header")
    if len({spec.form for spec in specs}) > FORMS:
        raise InputError(
            f"file {quoted(file)} has over {FORMS} forms and languages: use fewer, each is counted separately"
        )
    return build_cases(specs, suite=NAME, version=VERSION, replicates=replicates), []
