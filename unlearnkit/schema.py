"""The nouns: what is asked for, as plain frozen data (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import InputError, quoted

__all__ = ["Case", "Concept", "Kind", "Recipe", "Request", "Role", "Score"]

Kind = Literal["object", "style"]
KINDS: tuple[str, ...] = ("object", "style")
Role = Literal["erased", "near", "unrelated"]
LONGEST = 1000  # characters of a concept's name
ROLES: tuple[str, ...] = ("erased", "near", "unrelated")


@dataclass(frozen=True)
class Concept:
    """Something a model can draw and shall no longer draw.

    name: the word or words that call it, for example ``"cat"`` or ``"van gogh"``.
    kind: ``"object"`` (a thing in a picture) or ``"style"`` (a manner of drawing it).
    phrases: other wordings that mean the same and are erased with it (``"kitten"``).
    instead: what shall appear in its place; ``None`` leaves that to the method.
    """

    name: str
    kind: Kind = "object"
    phrases: tuple[str, ...] = ()
    instead: str | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InputError("the concept is empty: name what shall be erased, for example --concept cat")
        if self.kind not in KINDS:
            raise InputError(f"kind {quoted(self.kind)} is unknown: use one of {', '.join(KINDS)}")
        if any(not phrase.strip() for phrase in self.phrases):
            raise InputError(f"concept {quoted(self.name)} has an empty phrase: leave it out or spell it")
        if any(len(word) > LONGEST for word in (*self.wordings, self.instead or "")):
            raise InputError(
                f"concept {quoted(self.name)} has a name, phrase or 'instead' of over {LONGEST} characters: no text "
                "encoder reads so many"
            )
        words = {" ".join(word.lower().split()) for word in self.wordings}
        if self.instead is not None and " ".join(self.instead.lower().split()) in words:
            raise InputError(
                f"concept {quoted(self.name)} cannot be replaced by itself: give another 'instead'"
            )

    @property
    def wordings(self) -> tuple[str, ...]:
        """The name and every further phrase, in order, without repeats."""
        return tuple(dict.fromkeys((self.name, *self.phrases)))


@dataclass(frozen=True)
class Request:
    """Which concepts to erase in one go, and which must stay as they are.

    keep: names that the method protects explicitly; empty means the method's own choice.
    """

    erase: tuple[Concept, ...]
    keep: tuple[Concept, ...] = ()

    def __post_init__(self) -> None:
        if not self.erase:
            raise InputError("the request erases nothing: name at least one concept")
        kept = {word.lower() for concept in self.keep for word in concept.wordings}
        for concept in self.erase:
            if clash := kept.intersection(word.lower() for word in concept.wordings):
                raise InputError(
                    f"{quoted(sorted(clash)[0])} is both erased and kept: take it out of one of the two"
                )


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a run: the same recipe twice gives the same edit.

    model: ``"canvas"`` or one of its relatives, a diffusers folder, a hub id or a single ``.safetensors`` file.
    settings: the method's settings by name; what is left out takes the method's default.
    """

    model: str
    method: str
    request: Request
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed {quoted(self.seed)} is out of range: use 0 to 2**63 - 1")


@dataclass(frozen=True)
class Case:
    """One picture that an evaluation asks for, of the untouched and of the edited model alike.

    id: a plain file name. prompt_id: the same for every picture of a prompt, which is the unit of the statistics.
    role: what the prompt asks for is ``"erased"``, a ``"near"`` neighbour of that, or ``"unrelated"``.
    form: how it asks: ``"name"``, ``"synonym"``, ``"template"``, ``"background"``, ``"superclass"`` or a suite's own.
    object, style: what a right picture shows, empty where the prompt does not say.
    concept: the erased concept that a prompt of role erased asks for. rest: the prompt without it, empty if unknown.
    """

    id: str
    prompt_id: str
    prompt: str
    seed: int
    role: Role
    form: str
    object: str = ""
    style: str = ""
    concept: str = ""
    rest: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"role {quoted(self.role)} is unknown: use one of {', '.join(ROLES)}")
        if not self.prompt.strip():
            raise InputError(f"case {quoted(self.id)} has an empty prompt: say what to draw")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"case {quoted(self.id)} has seed {quoted(self.seed)}: use 0 to 2**63 - 1")


@dataclass(frozen=True)
class Score:
    """What one metric found in one picture: a number, or the word for what it saw.

    case: the id of the Case. side: whose picture it is, ``"before"``, ``"after"`` or a reference model's name.
    image: sha256 of the picture's pixels. metric: its full name, with the hash of the weights that it looked with.
    """

    case: str
    side: str
    image: str
    metric: str
    value: float | str
    suite: str
