"""A model folder's own ``unlearnkit.toml``: sampling, vocabulary, templates and recommended settings.

[sampling]              steps = 25, guidance = 5.0, size = 512, tokens = 128
[vocabulary]            objects = ["cat", ...], styles = ["van gogh", ...]
[templates]             object = ["a picture of a {}", ...], style = ["a {} picture", ...]
[training]              checkpointing = true, ...
[methods.esd.object]    lr = 1e-4, instead = "nearest", ...
[erase]                 method = "robust"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ModelError, nearest, printable, quoted
from ..io.reading import parse_toml, read_toml
from ..schema import Concept

__all__ = ["FILE", "GENERAL", "Hints", "parse", "read"]

FILE = "unlearnkit.toml"
INSTEAD = "instead"

OBJECTS = (
    *(
        "cat",
        "dog",
        "horse",
        "bear",
        "elephant",
        "bird",
        "fish",
        "butterfly",
        "car",
        "bus",
        "bicycle",
        "airplane",
    ),
    *(
        "boat",
        "train",
        "church",
        "house",
        "chair",
        "clock",
        "guitar",
        "apple",
        "banana",
        "pizza",
        "tree",
        "flower",
    ),
)
STYLES = (
    *("van gogh", "picasso", "monet", "rembrandt", "andy warhol", "hokusai", "watercolor", "oil painting"),
    *("pencil sketch", "pixel art", "pop art", "stained glass", "anime", "photograph"),
)
TEMPLATES = {
    "object": ("a photo of a {}", "a picture of a {}", "an image of a {}", "a painting of a {}"),
    "style": ("a painting in the style of {}", "an image in the style of {}", "art by {}", "a picture by {}"),
}


@dataclass(frozen=True)
class Hints:
    """Recommended settings of a model.

    steps, guidance: for sampling. size: of its images in pixels, None: the model's default.
    tokens: of T5 in Stable Diffusion 3 and Flux (``max_sequence_length``), None: the pipeline's default.
    objects, styles: the vocabulary, from which neighbours are chosen.
    templates: prompts by kind, each with one ``{}`` for the concept.
    training: defaults for all methods with these settings.
    methods: defaults by method and kind, which override ``training`` and the method's own. ``instead`` among them is
        what takes the place of a concept for which the request names nothing.
    method: that erases where none is asked for.
    recognition: by kind, the smallest gain of a word that the model knows, see ``data.recognition``.
    text: of the file, empty for the general hints.
    """

    steps: int = 50
    guidance: float = 7.5
    size: int | None = None
    tokens: int | None = None
    objects: tuple[str, ...] = OBJECTS
    styles: tuple[str, ...] = STYLES
    templates: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(TEMPLATES))
    training: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    method: str = "esd"
    recognition: Mapping[str, float] = field(default_factory=dict)
    text: str = ""

    def vocabulary(self, kind: str) -> tuple[str, ...]:
        """The words of ``"object"`` or ``"style"``."""
        return self.styles if kind == "style" else self.objects

    @property
    def words(self) -> tuple[Concept, ...]:
        """The whole vocabulary, each word once, objects first."""
        objects, styles = (dict.fromkeys(words) for words in (self.objects, self.styles))
        return (*map(Concept, objects), *(Concept(word, "style") for word in styles))

    def settings(self, method: str, kind: str) -> dict[str, Any]:
        """This model's defaults for ``method`` on a concept of ``kind``; empty if there are none."""
        own = self.methods.get(method, {}).get(kind, {})
        return {name: value for name, value in own.items() if name != INSTEAD}

    def instead(self, method: str) -> dict[str, str]:
        """By kind, what takes a concept's place unless the request says."""
        return {
            kind: str(own[INSTEAD]) for kind, own in self.methods.get(method, {}).items() if INSTEAD in own
        }

    def suited(self, sampling: tuple[int, float], classes: tuple[str, ...] | None) -> Hints:
        """The hints for a family: general hints get its steps and guidance, class-conditional models get no templates.

        classes: the class names of a class-conditional model, else None.
        """
        hints = self
        if self is GENERAL:
            hints = replace(hints, steps=sampling[0], guidance=sampling[1])
        if classes is None:
            return hints
        known = classes if self.objects is OBJECTS else self.objects
        for word in known:
            if word not in classes and not word.isdecimal():
                raise ModelError(
                    f"the vocabulary has {word!r}{nearest(word, classes)}: no class has this name"
                )
        return replace(hints, objects=known, styles=(), templates=dict.fromkeys(TEMPLATES, ("{}",)))


GENERAL = Hints(methods={"esd": {"object": {"trains": "not-xattn"}, "style": {"trains": "xattn"}}})


def read(folder: str | Path) -> Hints:
    """The hints in ``folder``, or the general hints if it has none. Raises ModelError for an invalid file."""
    path = Path(folder) / FILE
    if not path.exists():
        return GENERAL
    return _hints(read_toml(path, what="the hints", error=ModelError), path, path.read_text("utf-8-sig"))


def parse(text: str, *, where: str = FILE) -> Hints:
    """The hints in a TOML text; the rest are the general hints. Raises ModelError for an unknown or invalid entry."""
    return _hints(parse_toml(text, where=quoted(where), error=ModelError), where, text)


def _hints(data: dict[str, Any], where: str | Path, text: str) -> Hints:
    tables = {
        "sampling": ("steps", "guidance", "size", "tokens"),
        "vocabulary": ("objects", "styles"),
        "templates": tuple(TEMPLATES),
        "recognition": tuple(TEMPLATES),
        "erase": ("method",),
    }
    for name, table in data.items():
        if name not in (allowed := [*tables, "training", "methods"]) or not isinstance(table, dict):
            raise ModelError(f"{quoted(where)} has an unknown table {quoted(name)}{nearest(name, allowed)}")
        for key, value in table.items():
            if name in tables and key not in tables[name]:
                raise ModelError(
                    f"{quoted(where)} has an unknown key {printable(f'{name}.{key}')[:80]}{nearest(key, tables[name])}"
                )
            if not _fits(name, key, value):
                raise ModelError(
                    f"{quoted(where)} has {printable(f'{name}.{key}')[:80]} = {quoted(value)}: {_ALLOWED[name]}"
                )
    sampling, vocabulary = data.get("sampling", {}), data.get("vocabulary", {})
    return Hints(
        steps=sampling.get("steps", GENERAL.steps),
        guidance=float(sampling.get("guidance", GENERAL.guidance)),
        size=sampling.get("size"),
        tokens=sampling.get("tokens"),
        objects=tuple(vocabulary.get("objects", OBJECTS)),
        styles=tuple(vocabulary.get("styles", STYLES)),
        templates={**TEMPLATES, **{kind: tuple(items) for kind, items in data.get("templates", {}).items()}},
        training=data.get("training", {}),
        methods={**GENERAL.methods, **data.get("methods", {})},
        method=data.get("erase", {}).get("method", GENERAL.method),
        recognition=data.get("recognition", {}),
        text=text,
    )


MOST = {"steps": 1000, "size": 8192, "tokens": 4096}
WORDS, LENGTH = 100_000, 500  # the most words of a list, and the most characters of each
_ALLOWED = {
    "sampling": "steps is a whole number from 1 to 1000, guidance a number from 0 to 1000, size from 1 to 8192, tokens "
    "from 1 to 4096",
    "vocabulary": "it takes a list of words, of at most 500 characters each",
    "templates": 'it takes a list of texts with one "{}" each',
    "recognition": "it takes a number from 0 to 1000",
    "training": "it takes settings, each a text, a number, a list, true or false",
    "erase": "it takes the name of a method",
    "methods": "it takes [methods.NAME.object] and [methods.NAME.style] with settings; 'instead' is a word",
}


def _word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= LENGTH and value.isprintable()


def _fits(table: str, key: str, value: Any) -> bool:
    if table == "training":
        return isinstance(value, bool | int | float | str | list)
    if isinstance(value, bool):
        return False
    if key in MOST and table == "sampling":
        return isinstance(value, int) and 1 <= value <= MOST[key]
    if key == "guidance" or table == "recognition":
        return isinstance(value, int | float) and 0 <= value <= 1000
    if table == "erase":
        return _word(value)
    if table == "methods":
        return isinstance(value, dict) and all(
            kind in TEMPLATES and isinstance(settings, dict) and _word(settings.get(INSTEAD, "a word"))
            for kind, settings in value.items()
        )
    words = isinstance(value, list) and len(value) <= WORDS and all(map(_word, value))
    return words and (
        table == "vocabulary" or (len(value) > 0 and all(word.count("{}") == 1 for word in value))
    )
