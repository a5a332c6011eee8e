"""The user's own prompts: a CSV file with a column ``prompt`` and, as far as known, what a right picture shows.

prompt,role,form,object,style,concept,rest,seed,language
a photo of a cat on a sofa,erased,name,cat,,cat,a photo of a sofa,,
ein Foto von einer Katze,erased,name,cat,,cat,,,German
a photo of a dog on a sofa,near,name,dog,,,,,

A language makes a form of its own, "name in German": a claim that generalises must hold in every language asked.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError, listed, nearest, quoted
from ..schema import ROLES, Case, Concept, Request, Role
from .asking import Question, ask, refuse, rows

NAME, VERSION, ASKS_FILE = "prompts", 1, True
SUMMARY = "your own CSV: prompt, and optionally role, form, object, style, concept, rest, seed, language"
FORMS = 200  # of prompts, at most
COLUMNS = ("prompt", "role", "form", "object", "style", "concept", "rest", "seed", "language")


def known(concept: Concept) -> str:
    """The concept's own name."""
    return concept.name


def cases(request: Request, replicates: int, file: Path | None) -> tuple[list[Case], list[str]]:
    if file is None:
        raise InputError(f"suite {quoted(NAME)} takes the prompts of a CSV file")
    names = {concept.name for concept in request.erase}
    only = next(iter(names)) if len(names) == 1 else ""
    questions: list[Question] = []
    wrong: list[str] = []
    for line, row in rows(file, required=("prompt",)):
        if not questions and (odd := [name for name in row if name not in COLUMNS]):
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
            questions.append(Question(row["prompt"], sort, form, *looks, seeds))
    refuse(file, wrong)
    if not questions:
        raise InputError(f"file {quoted(file)} has no prompts: add rows under its header")
    if len({question.form for question in questions}) > FORMS:
        raise InputError(
            f"file {quoted(file)} has over {FORMS} forms and languages: use one for many prompts, each is counted apart"
        )
    return ask(questions, suite=NAME, version=VERSION, replicates=replicates), []
