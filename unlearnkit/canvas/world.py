"""The canvas world as data: objects, styles, backgrounds, captions, and what is held out (``world.toml``)."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ..wording import articles

__all__ = ["BACKGROUNDS", "OBJECTS", "STYLES", "Picture", "Thing", "an", "caption", "held_captions"]

_DATA = tomllib.loads((Path(__file__).parent / "world.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Thing:
    """An object of the world: its superclass, its drawings and its other names (``held``: unseen by the U-Net)."""

    name: str
    within: str
    glyphs: tuple[str, ...]
    synonyms: tuple[str, ...]
    held: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """What one painted picture shows; ``seed`` fixes everything else about it (place, size, tilt, noise)."""

    object: str
    style: str
    background: str
    glyph: str
    seed: int


VERSION: int = _DATA["version"]
OBJECTS: dict[str, Thing] = {
    name: Thing(name, o["within"], tuple(o["glyphs"]), tuple(o.get("synonyms", ())), tuple(o.get("held", ())))
    for name, o in _DATA["objects"].items()
}
STYLES: tuple[str, ...] = tuple(_DATA["styles"])
SHOWS_BACKGROUND: dict[str, bool] = {name: s["background"] for name, s in _DATA["styles"].items()}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {n: tuple(c) for n, c in _DATA["backgrounds"].items()}
SUPERCLASSES: tuple[str, ...] = tuple(dict.fromkeys(thing.within for thing in OBJECTS.values()))
TEMPLATES: dict[str, list[str]] = _DATA["templates"]
SHARES: dict[str, float] = _DATA["shares"]
HELD_PAIRS: frozenset[tuple[str, str]] = frozenset(
    (name, background) for name, backgrounds in _DATA["held_pairs"].items() for background in backgrounds
)
NEVER_KNEW_OBJECTS: tuple[str, ...] = tuple(_DATA["never_knew"]["objects"])
NEVER_KNEW_STYLES: tuple[str, ...] = tuple(_DATA["never_knew"]["styles"])
NOTHING = (
    "nothing"  # what an evaluator sees in a picture without any of the objects, or in none of the styles
)
UNKNOWN: dict[str, list[str]] = _DATA["unknown"]  # drawings of nothing that the world knows


def an(word: str) -> str:
    """The word with its indefinite article: ``an("apple") == "an apple"``."""
    return articles(f"a {word}")


def draw_picture(rng: random.Random, *, held_pairs: bool = False) -> Picture:
    """Choose what to paint, uniformly over object, style, drawing and background.

    held_pairs: whether the held-out pairs of object and background may appear (never in training).
    """
    name = rng.choice(list(OBJECTS))
    allowed = [b for b in BACKGROUNDS if held_pairs or (name, b) not in HELD_PAIRS]
    return Picture(
        object=name,
        style=rng.choice(STYLES),
        background=rng.choice(allowed),
        glyph=rng.choice(OBJECTS[name].glyphs),
        seed=rng.getrandbits(48),
    )


def caption(picture: Picture, rng: random.Random, *, held: bool = False) -> str:
    """A caption of the picture, drawn at random from the world's templates and words.

    held: draw from the held-out templates and synonyms too (the text tower's captions), else never from them.
    """
    style_only = TEMPLATES["style_only"] if picture.style != "plain" else []
    if style_only and rng.random() < SHARES["style_only"]:
        return rng.choice(style_only).format(s=picture.style)
    thing = OBJECTS[picture.object]
    words = thing.synonyms + (thing.held if held else ())
    word = thing.name
    if words and rng.random() < SHARES["synonym"]:
        word = rng.choice(words)
    elif rng.random() < SHARES["superclass"]:
        word = thing.within
    family = "plain" if picture.style == "plain" else "styled"
    templates = TEMPLATES[family] + (TEMPLATES[f"{family}_held"] if held else [])
    text = rng.choice(templates).format(a=an(word), o=word, s=picture.style)
    if SHOWS_BACKGROUND[picture.style] and rng.random() < SHARES["background"]:
        text += rng.choice(TEMPLATES["background"]).format(b=picture.background)
    return text


def prompt(word: str, style: str = "plain", *, template: int = 0, held: bool = False) -> str:
    """The template's caption for an object word in a style: the wording that checks and suites use."""
    family = ("plain" if style == "plain" else "styled") + ("_held" if held else "")
    return TEMPLATES[family][template].format(a=an(word), o=word, s=style)


def held_captions(word: str, style: str = "plain") -> list[str]:
    """The object word in every held-out template."""
    family = "plain_held" if style == "plain" else "styled_held"
    return [template.format(a=an(word), o=word, s=style) for template in TEMPLATES[family]]


def every_caption() -> list[str]:
    """Every caption the world can produce, held ones included, in a fixed order (the tokenizer learns from these)."""
    texts: dict[str, None] = {}
    for thing in OBJECTS.values():
        for word in (thing.name, thing.within, *thing.synonyms, *thing.held):
            for style in STYLES:
                family = "plain" if style == "plain" else "styled"
                for template in TEMPLATES[family] + TEMPLATES[f"{family}_held"]:
                    texts[template.format(a=an(word), o=word, s=style)] = None
    for style in STYLES:
        texts |= dict.fromkeys(t.format(s=style) for t in TEMPLATES["style_only"])
    for background in BACKGROUNDS:
        texts |= dict.fromkeys("a cat" + t.format(b=background) for t in TEMPLATES["background"])
    return list(texts)
