"""Concepts, requests, recipes, cases and scores as plain frozen data (standard library only)."""

from __future__ import annotations

import operator
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import InputError, quoted

__all__ = [
    "NEAREST",
    "Case",
    "Concept",
    "Kind",
    "Recipe",
    "Request",
    "Role",
    "Score",
    "as_seed",
    "check_unicode",
    "folded",
    "spelled",
]

Kind = Literal["object", "style"]
KINDS: tuple[Kind, ...] = ("object", "style")
Role = Literal["erased", "near", "unrelated"]
ROLES: tuple[str, ...] = ("erased", "near", "unrelated")
LONGEST = 500  # characters of a name
NOTHING, NEAREST = "nothing", "nearest"  # what may take a concept's place, beside a word
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories of invisible characters
JOINERS = "\u200c\u200d"  # exceptions that some scripts and emoji need


def spelled(name: str) -> str:
    """The name for prompts: Unicode NFC, each run of white space one blank, stripped."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def folded(name: str) -> str:
    """The name for comparisons, case folded: two names with the same folded text are the same name."""
    return spelled(unicodedata.normalize("NFD", name).casefold())


@dataclass(frozen=True)
class Concept:
    """Something that a model can draw, to be erased or retained.

    name: its word or words, for example ``"cat"`` or ``"van gogh"``.
    kind: ``"object"`` (a thing in an image) or ``"style"`` (a manner of drawing).
    phrases: synonyms that are erased with it (``"kitten"``).
    instead: what replaces it: a word; ``"nothing"`` (kept as ``""``): the rest of the prompt alone; ``"nearest"``: the
        retained word of its kind that the model predicts most like it; ``None`` leaves that to the method.
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
            instead = spelled(self.instead)
            instead = {NOTHING: "", NEAREST: NEAREST}.get(folded(instead), instead)
            object.__setattr__(self, "instead", instead)
        if not self.name:
            raise InputError("the concept is empty: name what to erase, for example --concept cat")
        if self.kind not in KINDS:
            raise InputError(f"kind {quoted(self.kind)} is unknown: use one of {', '.join(KINDS)}")
        if not all(self.phrases):
            raise InputError(f"concept {quoted(self.name)} has an empty phrase: leave it out or spell it")
        if self.instead is not None and folded(self.instead) in self.folded:
            own = (
                "itself"
                if folded(self.instead) == folded(self.name)
                else f"its own phrase {quoted(self.instead)}"
            )
            raise InputError(
                f"concept {quoted(self.name)} cannot be replaced by {own}: give another 'instead'"
            )

    @property
    def wordings(self) -> tuple[str, ...]:
        """The name and the phrases, in order, without repeats."""
        wordings: dict[str, str] = {}
        for word in (self.name, *self.phrases):
            wordings.setdefault(folded(word), word)
        return tuple(wordings.values())

    @property
    def folded(self) -> frozenset[str]:
        """The wordings, folded for comparisons."""
        return frozenset(map(folded, self.wordings))

    @property
    def meaning(self) -> tuple[Kind, frozenset[str], str | None]:
        """What two spellings of one concept share: kind, folded wordings and the folded word in its place."""
        return self.kind, self.folded, None if self.instead is None else folded(self.instead)


@dataclass(frozen=True)
class Request:
    """Concepts to erase together, and concepts to retain. A repeated concept counts once.

    keep: the retain concepts; empty: the method chooses them.
    """

    erase: tuple[Concept, ...]
    keep: tuple[Concept, ...] = ()

    def __post_init__(self) -> None:
        if not self.erase:
            raise InputError("the request erases nothing: name at least one concept")
        object.__setattr__(self, "erase", _unique(self.erase))
        object.__setattr__(self, "keep", _unique(self.keep))
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
        """Every erased wording, folded for comparisons."""
        return frozenset(word for concept in self.erase for word in concept.folded)


def _check(name: Any) -> None:
    """Raises InputError for a name that is no text, too long, or has invisible characters."""
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


def _unique(concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
    """The concepts without repeats of an earlier one."""
    unique: dict[Any, Concept] = {}
    for concept in concepts:
        unique.setdefault(concept.meaning, concept)
    return tuple(unique.values())


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a run: the same recipe twice gives the same edit.

    model: ``"canvas"`` or one of its relatives, a diffusers folder, a hub id or a single ``.safetensors`` file.
    settings: the method's settings by name; the others take the method's defaults.
    dtype: of the opened model, default: float32.
    variant: of the files with its weights, such as ``"fp16"``. Default: the plain files, or the only variant.
    """

    model: str
    method: str
    request: Request
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    dtype: str | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", as_seed(self.seed))


@dataclass(frozen=True)
class Case:
    """One image of an evaluation, drawn by the base model and by the edited model.

    id: a plain file name. prompt_id: the same for every image of a prompt, which is the unit of the statistics.
    role: the prompt's concept is ``"erased"``, a ``"near"`` neighbour of an erased one, or ``"unrelated"``.
    form: of the prompt: ``"name"``, ``"synonym"``, ``"template"``, ``"background"``, ``"superclass"`` or a suite's own.
    object, style: what a correct image shows, empty if the prompt does not say.
    concept: the erased concept in a prompt of role erased. rest: the prompt without it, empty if unknown.
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
        object.__setattr__(self, "seed", as_seed(self.seed, f"case {quoted(self.id)}: seed"))


@dataclass(frozen=True)
class Score:
    """One metric's value for one image: a number, or the class that it predicts.

    case: the id of the Case. side: the model that drew it: ``"before"``, ``"after"`` or a reference model's name.
    image: sha256 of the image's pixels. metric: its full name, with the hash of the metric's weights.
    """

    case: str
    side: str
    image: str
    metric: str
    value: float | str
    suite: str


def as_seed(seed: Any, name: str = "seed") -> int:
    """The seed as an int. Raises InputError for what no generator takes. name: begins the message."""
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        raise InputError(f"{name} {quoted(seed)} is no whole number: use 0 to 2**63 - 1") from None
    if not 0 <= number < 2**63:
        raise InputError(f"{name} {quoted(seed)} is out of range: use 0 to 2**63 - 1")
    return number


def check_unicode(text: str) -> None:
    """Raise InputError for a text that UTF-8 cannot encode, such as other bytes from a command line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{quoted(text)} is not valid Unicode text: spell it in UTF-8") from None
