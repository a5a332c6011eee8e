"""DUGE's evaluation (arXiv 2503.13769) as the code of CUIG (arXiv 2511.07970) has it: 21 words, 8 fixed seeds each.

Prompt i has the seeds 1 + 8 i to 8 + 8 i. That code draws with 50 steps at guidance 8; here the model's own sampler
draws. The labels are those of ImageNet-1k: the last six words have none, and only CLIP or distances see them. An
apple counts as right where it is a Granny Smith, so compare with the untouched model.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, nearest, quoted
from ..schema import Case, Concept, Request, folded
from .prompt_specs import PromptSpec, build_cases

NAME, VERSION, NEEDS_FILE = "duge", 1, False
SUMMARY = "DUGE's 21 prompts x 8 fixed seeds, for a classifier with ImageNet's labels"

EACH = 8
LABELS = {  # the first of ImageNet's names for the label; empty: no label
    "apple": "Granny Smith",
    "broccoli": "broccoli",
    "backpack": "backpack",
    "traffic light": "traffic light",
    "umbrella": "umbrella",
    "parachute": "parachute",
    "orange": "orange",
    "goldfish": "goldfish",
    "bowtie": "bow tie",
    "harp": "harp",
    "gas pump": "gas pump",
    "sunglasses": "sunglasses",
    "computer mouse": "mouse",
    "broom": "broom",
    "English Springer": "English springer",
    "Eiffel Tower": "",
    "girl": "",
    "corgi": "",
    "fruit": "",
    "airplane": "",
    "car": "",
}


def cases(request: Request, replicates: int, file: Path | None) -> tuple[list[Case], list[str]]:
    if replicates != 1:
        raise InputError(f"suite {quoted(NAME)} has {EACH} fixed seeds: leave out --replicates")
    erased = {_word(concept) for concept in request.erase}
    specs = []
    for place, (word, label) in enumerate(LABELS.items()):
        article = "an" if word[0] in "aeiouAEIOU" else "a"
        first = 1 + EACH * place
        hit = (label or word) if word in erased else ""
        specs.append(
            PromptSpec(
                *(f"A photo of {article} {word}", "erased" if hit else "unrelated", "name", label),
                concept=hit,
                seeds=tuple(range(first, first + EACH)),
            )
        )
    return build_cases(specs, suite=NAME, version=VERSION, replicates=1), []


def own_name(concept: Concept) -> str:
    """The classifier's label of a concept, or the concept's word if there is none."""
    word = _word(concept)
    return LABELS[word] or word


def _word(concept: Concept) -> str:
    names, name = {folded(word): word for word in LABELS}, folded(concept.name)
    if concept.kind != "object" or name not in names:
        raise InputError(
            f"DUGE's evaluation has no {concept.kind} {quoted(concept.name)}{nearest(name, names)}: "
            f"use one of {', '.join(LABELS)}"
        )
    return names[name]
