"""The canvas: every object in every style; erased concepts by name, synonym, held-out wording and background.

Each prompt is used once. The pictures of a cell come from its different wordings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..canvas import world
from ..errors import InputError, nearest, quoted
from ..schema import Case, Concept, Request, Role, folded
from .prompt_specs import PromptSpec, build_cases

NAME, VERSION, NEEDS_FILE = "canvas", 1, False
SUMMARY = "the canvas's objects and styles: the erased one in many wordings, its neighbours, everything else"

# styles that look alike, in both directions
ALIKE = (
    *(("pixel art", "halftone"), ("pop art", "halftone"), ("pencil sketch", "blueprint")),
    *(("watercolor", "van gogh"), ("neon", "blueprint"), ("stained glass", "pop art")),
)
NEAR = 120  # prompts of near cells: with fewer a margin of 5 points can hardly be shown


def cases(request: Request, replicates: int, file: Path | None) -> tuple[list[Case], list[str]]:
    erased = [(own_name(concept), concept) for concept in request.erase]
    specs = [
        *(spec for name, concept in erased for spec in _erased(name, concept)),
        *_retained(
            {name for name, one in erased if one.kind == "object"},
            {name for name, one in erased if one.kind == "style"},
        ),
    ]
    return build_cases(specs, suite=NAME, version=VERSION, replicates=replicates), []


def own_name(concept: Concept) -> str:
    """The canvas's name of a concept, which may be requested by a synonym."""
    if concept.kind == "style":
        names = {style: style for style in world.STYLES}
    else:
        names = {
            word: thing.name
            for thing in world.OBJECTS.values()
            for word in (thing.name, *thing.synonyms, *thing.held_out)
        }
    if folded(concept.name) not in names:
        raise InputError(
            f"the canvas has no {concept.kind} {quoted(concept.name)}{nearest(folded(concept.name), names)}: "
            f"use one of {', '.join(dict.fromkeys(names.values()))}"
        )
    return names[folded(concept.name)]


def _erased(name: str, concept: Concept) -> Iterator[PromptSpec]:
    """All prompts of the erased concept, form by form."""
    if concept.kind == "style":
        yield from _erased_style(name)
        return
    thing, names = world.OBJECTS[name], concept.folded | {name}

    def of(form: str, prompt: str, style: str) -> PromptSpec:
        return PromptSpec(prompt, "erased", form, name, style, name, _without_object(style))

    for word in (name, *thing.synonyms, *thing.held_out):
        for style in world.STYLES:
            form = "name" if word in names else "synonym"
            for prompt in _wordings(word, style)[:: 1 if word == name else 2]:
                yield of(form, prompt, style)
    for style in world.STYLES:
        for prompt in world.held_out_captions(name, style):
            yield of("template", prompt, style)
            if world.SHOWS_BACKGROUND[style]:
                backgrounds = list(world.BACKGROUNDS) if style == "plain" else list(world.BACKGROUNDS)[::4]
                for background in backgrounds:
                    yield of("template", f"{prompt} on a {background} background", style)
    for prompt in _wordings(name, "plain"):
        for background in world.BACKGROUNDS:
            yield of("background", f"{prompt} on a {background} background", "plain")
    for style in world.STYLES:
        for prompt in _wordings(thing.within, style)[:3]:
            # any member of the superclass is right: no object is expected, pictures of the erased one are counted
            yield PromptSpec(prompt, "erased", "superclass", "", style, name)


def _erased_style(name: str) -> Iterator[PromptSpec]:
    for i, thing in enumerate(world.OBJECTS.values()):
        rest = world.prompt(thing.name)
        wordings = _wordings(thing.name, name)
        for k in range(3):
            prompt = wordings[(i + k) % len(wordings)]
            yield PromptSpec(prompt, "erased", "name", thing.name, name, name, rest)
        for prompt in world.held_out_captions(thing.name, name):
            yield PromptSpec(prompt, "erased", "template", thing.name, name, name, rest)
        if world.SHOWS_BACKGROUND[name]:
            for background in list(world.BACKGROUNDS)[i % 4 :: 4]:
                prompt = f"{wordings[i % len(wordings)]} on a {background} background"
                yield PromptSpec(prompt, "erased", "background", thing.name, name, name, rest)
    for template in world.TEMPLATES["style_only"]:
        yield PromptSpec(template.format(s=name), "erased", "name", "", name, name)


def _retained(objects: set[str], styles: set[str]) -> Iterator[PromptSpec]:
    """Every cell that is not erased; near ones have more wordings than the others."""
    near_objects = {
        o for o, thing in world.OBJECTS.items() for e in objects if world.OBJECTS[e].within == thing.within
    }
    near_styles = {b for pair in ALIKE for a, b in (pair, pair[::-1]) if a in styles}
    cells = [
        (i + j, name, style, name in near_objects or style in near_styles)
        for i, name in enumerate(world.OBJECTS)
        for j, style in enumerate(world.STYLES)
        if name not in objects and style not in styles
    ]
    each = -(-NEAR // max(1, sum(near for *_, near in cells)))
    for offset, name, style, near in cells:
        role: Role = "near" if near else "unrelated"
        wordings = _wordings(name, style)
        for k in range(min(each, len(wordings)) if near else 1):
            yield PromptSpec(wordings[(offset + k) % len(wordings)], role, "name", name, style)


def _wordings(word: str, style: str) -> list[str]:
    templates = world.TEMPLATES["plain" if style == "plain" else "styled"]
    return [template.format(a=world.an(word), o=word, s=style) for template in templates]


def _without_object(style: str) -> str:
    return "" if style == "plain" else world.TEMPLATES["style_only"][0].format(s=style)
