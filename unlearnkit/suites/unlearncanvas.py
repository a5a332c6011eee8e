"""UnlearnCanvas (Zhang et al. 2024, arXiv:2402.11846) as its released evaluation draws it.

51 themes x 20 objects x 5 seeds. The words are those of the released code (OPTML-Group/UnlearnCanvas,
``const.py``), and so is the phrase "in Seed Images style", although no picture was ever captioned so. The released
samplers differ between methods; here the model's own sampler draws every side.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, nearest, quoted
from ..schema import Case, Concept, Request
from .asking import Question, ask

NAME, VERSION, ASKS_FILE = "unlearncanvas", 1, False
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
        raise InputError(f"suite {NAME!r} has {len(SEEDS)} fixed seeds: leave out --replicates")
    erased = {known(concept) for concept in request.erase}
    questions = []
    for style in STYLES:
        for thing in OBJECTS:
            hit = thing if thing in erased else style if style in erased else ""
            rest = f"An image in {_words(style)} style." if thing in erased else f"A {thing} image."
            prompt = f"A {thing} image in {_words(style)} style."
            role, said = ("erased", rest) if hit else ("unrelated", "")
            questions.append(Question(prompt, role, "name", thing, style, hit, said, SEEDS))  # type: ignore[arg-type]
    return ask(questions, suite=NAME, version=VERSION, replicates=1), []


def known(concept: Concept) -> str:
    """The benchmark's own spelling of a concept: ``van gogh`` is ``Van_Gogh``."""
    names = {_words(name).lower(): name for name in (STYLES if concept.kind == "style" else OBJECTS)}
    wanted = _words(concept.name).lower()
    if wanted not in names:
        raise InputError(
            f"UnlearnCanvas has no {concept.kind} {quoted(concept.name)}{nearest(wanted, names)}: use one of "
            f"{', '.join(names)}"
        )
    return names[wanted]


def _words(name: str) -> str:
    return name.replace("_", " ")
