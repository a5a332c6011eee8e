"""What a painted picture shows, chosen at random, and the captions that it is learned with."""

from __future__ import annotations

import random
from dataclasses import dataclass

from unlearnkit.canvas.world import BACKGROUNDS, DATA, OBJECTS, SHOWS_BACKGROUND, STYLES, TEMPLATES, an

__all__ = ["HELD_OUT_PAIRS", "UNKNOWN", "Picture", "caption", "draw_picture", "every_caption"]

SHARES: dict[str, float] = DATA["shares"]
HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    (name, background) for name, backgrounds in DATA["held_pairs"].items() for background in backgrounds
)
UNKNOWN: dict[str, list[str]] = DATA["unknown"]  # drawings of nothing that the world knows


@dataclass(frozen=True)
class Picture:
    """What one painted picture shows; ``seed`` fixes everything else about it (place, size, tilt, noise)."""

    object: str
    style: str
    background: str
    glyph: str
    seed: int


def draw_picture(rng: random.Random, *, held_out_pairs: bool = False) -> Picture:
    """Choose what to paint, uniformly over object, style, drawing and background.

    held_pairs: whether the held-out pairs of object and background may appear (never in training).
    """
    name = rng.choice(list(OBJECTS))
    allowed = [b for b in BACKGROUNDS if held_out_pairs or (name, b) not in HELD_OUT_PAIRS]
    return Picture(
        object=name,
        style=rng.choice(STYLES),
        background=rng.choice(allowed),
        glyph=rng.choice(OBJECTS[name].glyphs),
        seed=rng.getrandbits(48),
    )


def caption(picture: Picture, rng: random.Random, *, held_out: bool = False) -> str:
    """A caption of the picture, drawn at random from the world's templates and words.

    held: draw from the held-out templates and synonyms too (the text tower's captions), else never from them.
    """
    style_only = TEMPLATES["style_only"] if picture.style != "plain" else []
    if style_only and rng.random() < SHARES["style_only"]:
        return rng.choice(style_only).format(s=picture.style)
    thing = OBJECTS[picture.object]
    words = thing.synonyms + (thing.held_out if held_out else ())
    word = thing.name
    if words and rng.random() < SHARES["synonym"]:
        word = rng.choice(words)
    elif rng.random() < SHARES["superclass"]:
        word = thing.within
    family = "plain" if picture.style == "plain" else "styled"
    templates = TEMPLATES[family] + (TEMPLATES[f"{family}_held"] if held_out else [])
    text = rng.choice(templates).format(a=an(word), o=word, s=picture.style)
    if SHOWS_BACKGROUND[picture.style] and rng.random() < SHARES["background"]:
        text += rng.choice(TEMPLATES["background"]).format(b=picture.background)
    return text


def every_caption() -> list[str]:
    """Every caption the world can produce, held ones included, in a fixed order (the tokenizer learns from these)."""
    texts: dict[str, None] = {}
    for thing in OBJECTS.values():
        for word in (thing.name, thing.within, *thing.synonyms, *thing.held_out):
            for style in STYLES:
                family = "plain" if style == "plain" else "styled"
                for template in TEMPLATES[family] + TEMPLATES[f"{family}_held"]:
                    texts[template.format(a=an(word), o=word, s=style)] = None
    for style in STYLES:
        texts |= dict.fromkeys(t.format(s=style) for t in TEMPLATES["style_only"])
    for background in BACKGROUNDS:
        texts |= dict.fromkeys("a cat" + t.format(b=background) for t in TEMPLATES["background"])
    return list(texts)
