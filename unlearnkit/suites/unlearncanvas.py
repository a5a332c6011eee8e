"""UnlearnCanvas (Zhang et al. 2024, arXiv:2402.11846), with the prompts of its released evaluation.

51 themes x 20 objects x 5 seeds. The words are those of the released code (OPTML-Group/UnlearnCanvas, ``const.py``).
That includes the phrase "in Seed Images style", which no training caption has. The released samplers differ between
methods; here the model's own sampler draws every side.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, nearest, quoted
from ..schema import Case, Concept, Request, folded
from .prompt_specs import PromptSpec, build_cases

NAME, VERSION, NEEDS_FILE = "unlearncanvas", 1, False
SUMMARY = "UnlearnCanvas's answer set: 51 themes x 20 objects x 5 fixed seeds, for its fine-tuned model"

SEEDS = (188, 288, 588, 688, 888)
_OBJECTS = (
    "Architectures Bears Birds Butterfly Cats Dogs Fishes Flame Flowers Frogs Horses Human Jellyfish Rabbits "
    "Sandwiches Sea Statues Towers Trees Waterfalls"
)
_STYLES = (
    "Abstractionism Artist_Sketch Blossom_Season Bricks Byzantine Cartoon Cold_Warm Color_Fantasy Comic_Etch Crayon "
    "Cubism Dadaism Dapple Defoliation Early_Autumn Expressionism Fauvism French Glowing_Sunset Gorgeous_Love "
    "Greenfield Impressionism Ink_Art Joy Liquid_Dreams Magic_Cube Meta_Physics Meteor_Shower Monet Mosaic Neon_Lines "
    "On_Fire Pastel Pencil_Drawing Picasso Pop_Art Red_Blue_Ink Rust Seed_Images Sketch Sponge_Dabbed Structuralism "
    "Superstring Surrealism Ukiyoe Van_Gogh Vibrant_Flow Warm_Love Warm_Smear Watercolor Winter"
)
OBJECTS, STYLES = tuple(_OBJECTS.split()), tuple(_STYLES.split())
WORDS = {"object": OBJECTS, "style": STYLES}  # in the order of the released classifiers


def cases(request: Request, replicates: int, file: Path | None) -> tuple[list[Case], list[str]]:
    if replicates != 1:
        raise InputError(f"suite {quoted(NAME)} has {len(SEEDS)} fixed seeds: leave out --replicates")
    erased = {own_name(concept) for concept in request.erase}
    specs = []
    for style in STYLES:
        for thing in OBJECTS:
            hit = thing if thing in erased else style if style in erased else ""
            rest = f"An image in {_words(style)} style." if thing in erased else f"A {thing} image."
            prompt = f"A {thing} image in {_words(style)} style."
            role, rest_of_prompt = ("erased", rest) if hit else ("unrelated", "")
            specs.append(PromptSpec(prompt, role, "name", thing, style, hit, rest_of_prompt, SEEDS))  # type: ignore[arg-type]
    return build_cases(specs, suite=NAME, version=VERSION, replicates=1), []


def own_name(concept: Concept) -> str:
    """The benchmark's own spelling of a concept: ``van gogh`` is ``Van_Gogh``."""
    names = {folded(_words(name)): name for name in (STYLES if concept.kind == "style" else OBJECTS)}
    name = folded(_words(concept.name))
    if name not in names:
        raise InputError(
            f"UnlearnCanvas has no {concept.kind} {quoted(concept.name)}{nearest(name, names)}: use one of "
            f"{', '.join(names)}"
        )
    return names[name]


def _words(name: str) -> str:
    return name.replace("_", " ")
