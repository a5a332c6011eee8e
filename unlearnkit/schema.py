"""The nouns: what is asked for, as plain frozen data (standard library only)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import InputError, quoted

__all__ = [
    "Case",
    "Concept",
    "Kind",
    "Recipe",
    "Request",
    "Role",
    "Score",
    "check_unicode",
    "folded",
    "spelled",
]

Kind = Literal["object", "style"]
KINDS: tuple[str, ...] = ("object", "style")
Role = Literal["erased", "near", "unrelated"]
ROLES: tuple[str, ...] = ("erased", "near", "unrelated")
LONGEST = 500  # characters of a name
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of characters that are no part of a word
JOINERS = "\u200c\u200d"  # of these the two that some scripts and emoji need


def spelled(name: str) -> str:
    """The name as prompts say it: Unicode NFC, runs of white space as one blank, none around it."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def folded(name: str) -> str:
    """The name as names are compared: two names with the same folded text are the same name, in any locale."""
    return spelled(unicodedata.normalize("NFD", name).casefold())


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
        phrases: Any = self.phrases
        phrases = (phrases,) if isinstance(phrases, str) else tuple(phrases)
        for word in (self.name, *phrases, self.instead or ""):
            _check(word)
        object.__setattr__(self, "name", spelled(self.name))
        object.__setattr__(self, "phrases", tuple(map(spelled, phrases)))
        if self.instead is not None:
            object.__setattr__(self, "instead", spelled(self.instead))
        if not self.name:
            raise InputError("the concept is empty: name what shall be erased, for example --concept cat")
        if self.kind not in KINDS:
            raise InputError(f"kind {quoted(self.kind)} is unknown: use one of {', '.join(KINDS)}")
        if not all(self.phrases):
            raise InputError(f"concept {quoted(self.name)} has an empty phrase: leave it out or spell it")
        if self.instead is not None and folded(self.instead) in self.folded:
            raise InputError(
                f"concept {quoted(self.name)} cannot be replaced by itself: give another 'instead'"
            )

    @property
    def wordings(self) -> tuple[str, ...]:
        """The name and every further phrase, in order, without repeats."""
        found: dict[str, str] = {}
        for word in (self.name, *self.phrases):
            found.setdefault(folded(word), word)
        return tuple(found.values())

    @property
    def folded(self) -> frozenset[str]:
        """The wordings as they are compared."""
        return frozenset(map(folded, self.wordings))


@dataclass(frozen=True)
class Request:
    """Which concepts to erase in one go, and which must stay as they are. A concept that comes twice counts once.

    keep: names that the method protects explicitly; empty means the method's own choice.
    """

    erase: tuple[Concept, ...]
    keep: tuple[Concept, ...] = ()

    def __post_init__(self) -> None:
        if not self.erase:
            raise InputError("the request erases nothing: name at least one concept")
        object.__setattr__(self, "erase", _once(self.erase))
        object.__setattr__(self, "keep", _once(self.keep))
        seen: set[tuple[Kind, str]] = set()
        for concept in self.erase:
            if clash := sorted(word for word in concept.folded if (concept.kind, word) in seen):
                raise InputError(
                    f"{quoted(clash[0])} is erased twice, as two different concepts: name it in one of them"
                )
            seen |= {(concept.kind, word) for word in concept.folded}
        if clash := sorted({word for one in self.keep for word in one.folded} & self.erased):
            raise InputError(f"{quoted(clash[0])} is both erased and kept: take it out of one of the two")

    @property
    def erased(self) -> frozenset[str]:
        """Every wording that is erased, as it is compared (``folded``)."""
        return frozenset(word for concept in self.erase for word in concept.folded)


def _check(name: Any) -> None:
    """Refuse a name that nobody can read. Raises InputError."""
    if not isinstance(name, str):
        raise InputError(f"{quoted(name)} is no name: give a text")
    if len(name) > LONGEST:
        raise InputError(
            f"the name {quoted(name)} has {len(name):,} characters: name a concept in {LONGEST} at most"
        )
    if bad := [one for one in name if unicodedata.category(one) in HIDDEN and one not in JOINERS]:
        why = (
            "is not valid Unicode text" if unicodedata.category(bad[0]) == "Cs" else "is invisible in a name"
        )
        raise InputError(f"the name {quoted(name)} has the character {bad[0]!a}, which {why}: leave it out")


def _once(concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
    """The concepts without those that say again what an earlier one says."""
    found: dict[Any, Concept] = {}
    for one in concepts:
        place = None if one.instead is None else folded(one.instead)
        found.setdefault((one.kind, one.folded, place), one)
    return tuple(found.values())


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a run: the same recipe twice gives the same edit.

    model: ``"canvas"`` or one of its relatives, a diffusers folder, a hub id or a single ``.safetensors`` file.
    settings: the method's settings by name; what is left out takes the method's default.
    dtype: what the model is opened in, float32 if nothing else is told.
    variant: of the files with its weights, such as ``"fp16"``; by default the plain ones, or the only one.
    """

    model: str
    method: str
    request: Request
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    dtype: str | None = None
    variant: str | None = None

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


def check_unicode(text: str) -> None:
    """Raise InputError for a text that UTF-8 cannot spell, as a command line of other bytes gives it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{quoted(text)} is not valid Unicode text: spell it in UTF-8") from None
