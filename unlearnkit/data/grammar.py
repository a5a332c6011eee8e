"""Diverse prompts in pairs, with the concept and without, from a grammar of dimensions (Ko et al. 2024, section 4).

A grammar is a TOML file, one of ``grammars/`` or the user's own:

    [templates]     by kind, each with ``{concept}`` and any dimensions: "a {mood} [{concept} ]person {place}"
    [train] [test]  the words of each dimension, in pools that share none; {object} and {style} are the model's own,
                    all of them in both
    [others]        by kind, further words that may take the concept's place

In the prompt to keep, what stands in brackets goes; or, always where there are none, another word takes the
concept's place. The rest of the two prompts is the same. Templates and other words have their turns: with one draw over
all sentences, a template of few words would hardly come up.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from .. import seeds
from ..errors import InputError, nearest, printable, quoted
from ..io.files import user_path
from ..io.reading import read_toml
from ..schema import KINDS
from .wording import articles

__all__ = ["GRAMMARS", "Grammar", "Pool", "forms", "pairs", "read"]

Pool = Literal["train", "test"]
POOLS: tuple[Pool, ...] = ("train", "test")
FOLDER = Path(__file__).parent / "grammars"
GRAMMARS = ("plain", "people", "scenes")
LONGEST = 1000  # characters of a template or word
COMBINATIONS = 10_000_000  # of the words of a template's dimensions
OWN = ("object", "style")  # dimensions that the model's vocabulary fills


@dataclass(frozen=True)
class Grammar:
    """templates: by kind. words: by pool and dimension. others: by kind."""

    templates: Mapping[str, tuple[str, ...]]
    words: Mapping[str, Mapping[str, tuple[str, ...]]]
    others: Mapping[str, tuple[str, ...]]


def read(name: str) -> Grammar:
    """The grammar of this name, or in the TOML file at this path. Raises InputError for anything wrong in it."""
    path = FOLDER / f"{name}.toml" if name in GRAMMARS else user_path(name)
    with contextlib.suppress(PermissionError):  # the reader says so
        if not path.exists():
            raise InputError(
                f"grammar {quoted(name)} is neither a file nor known{nearest(name, GRAMMARS)}: "
                f"use {', '.join(GRAMMARS)}, or the path of a TOML file"
            )
    data, where = read_toml(path, what="grammar"), f"grammar {quoted(name)}"
    tables = ("templates", *POOLS, "others")
    for table, entries in data.items():
        if table not in tables or not isinstance(entries, dict):
            raise InputError(
                f"{where} has {quoted(table)}{nearest(table, tables)}: use tables {', '.join(tables)}"
            )
        for key, words in entries.items():
            if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
                raise InputError(
                    f"{where} has {quoted(words)} as {table}.{printable(key[:80])}: it takes a list of texts"
                )
            if longest := [word for word in words if len(word) > LONGEST]:
                raise InputError(f"{where} has {quoted(longest[0])}: a text has at most {LONGEST} characters")
    frozen = {table: {key: tuple(words) for key, words in data.get(table, {}).items()} for table in tables}
    _check(name, frozen)
    return Grammar(frozen["templates"], {pool: frozen[pool] for pool in POOLS}, frozen["others"])


def pairs(
    grammar: Grammar,
    kind: str,
    wordings: Sequence[str],
    others: Sequence[str],
    vocabulary: Mapping[str, Sequence[str]],
    *,
    count: int,
    seed: int,
    pool: Pool = "train",
    share: float = 0.0,
) -> list[tuple[str, str]]:
    """``count`` pairs (prompt to erase, prompt to keep), of each template in turn, all different while its words last.

    wordings: of the concept, taken in turn. others: words of its kind that are kept, for where it cannot simply go.
    vocabulary: words for {object} and {style}, without what is erased. share: of others where it could simply go.
    Raises InputError where a dimension or ``others`` is empty.
    """
    draws = seeds.stream(seed, "grammar", pool, *wordings)
    sentences = _sentences(grammar, kind, vocabulary, pool, count, draws)
    others = [*others, *grammar.others.get(kind, ())]
    if not others and (share > 0 or any("[" not in template for template in grammar.templates[kind])):
        raise InputError(
            "no other word can take the concept's place: give one with --keep, or a larger vocabulary"
        )
    found, queue = [], list[int]()
    for turn, sentence in sentences:
        instead = None
        if float(torch.rand((), generator=draws)) < share or "[" not in sentence:
            queue = queue or torch.randperm(len(others), generator=draws).tolist()
            instead = others[queue.pop()]
        found.append((_told(sentence, wordings[turn % len(wordings)]), _told(sentence, instead)))
    return found


def forms(
    grammar: Grammar, kind: str, vocabulary: Mapping[str, Sequence[str]], *, count: int, seed: int
) -> tuple[str, ...]:
    """At most ``count`` different sentences of the training pool, of each template in turn, ``{}`` for the concept.

    Raises InputError as ``pairs`` does.
    """
    draws = seeds.stream(seed, "grammar", kind)
    found = (
        _told(sentence, "{}") for _, sentence in _sentences(grammar, kind, vocabulary, "train", count, draws)
    )
    return tuple(dict.fromkeys(found))


def _sentences(
    grammar: Grammar,
    kind: str,
    vocabulary: Mapping[str, Sequence[str]],
    pool: Pool,
    count: int,
    draws: torch.Generator,
) -> list[tuple[int, str]]:
    """``count`` sentences with the concept still open, each with a number for the turns of the concept's wordings."""
    words, templates = {**vocabulary, **grammar.words[pool]}, grammar.templates.get(kind, ())
    if not templates:
        raise InputError(
            f"the grammar has no templates for a concept of kind {quoted(kind)}: add [templates] {kind}"
        )
    sizes = [math.prod(len(words.get(slot, ())) for slot in _slots(template)) for template in templates]
    for template, size in zip(templates, sizes, strict=True):
        if not size:
            raise InputError(
                f"the grammar's template {quoted(template)} has a dimension without words for {pool}: add some"
            )
    if max(sizes) > COMBINATIONS:
        template = templates[sizes.index(max(sizes))]
        raise InputError(
            f"the grammar's template {quoted(template)} has over {COMBINATIONS:,} combinations of words: give fewer "
            "words or dimensions"
        )
    orders = [torch.randperm(size, generator=draws)[:count].tolist() for size in sizes]
    found = []
    for place in range(count):
        turn, which = divmod(place, len(templates))
        again, index = divmod(turn, len(orders[which]))
        found.append((which + turn + again, _sentence(templates[which], words, orders[which][index])))
    return found


def _sentence(template: str, words: Mapping[str, Sequence[str]], index: int) -> str:
    """The template with the combination ``index`` of its dimensions' words, the concept still open."""
    for slot in _slots(template):
        index, place = divmod(index, len(words[slot]))
        template = template.replace(f"{{{slot}}}", words[slot][place])
    return template


def _told(sentence: str, word: str | None) -> str:
    """The sentence with the word, or without its part in brackets."""
    if word is None:
        sentence = re.sub(r"\[.*?\]", "", sentence)
    text = re.sub(r"[\[\]]", "", sentence).replace("{concept}", word or "")
    return articles(text)


def _slots(template: str) -> list[str]:
    return [slot for slot in dict.fromkeys(re.findall(r"\{(.*?)\}", template)) if slot != "concept"]


def _check(name: str, tables: Mapping[str, Mapping[str, tuple[str, ...]]]) -> None:
    if not tables["templates"] or any(
        kind not in KINDS for kind in (*tables["templates"], *tables["others"])
    ):
        raise InputError(
            f"grammar {quoted(name)} wants [templates] for {' or '.join(KINDS)}, and no other kinds"
        )
    for template in (one for forms in tables["templates"].values() for one in forms):
        bracketed = re.findall(r"\[(.*?)\]", template)
        if (
            template.count("{concept}") != 1
            or len(bracketed) > 1
            or (bracketed and "{concept}" not in bracketed[0])
        ):
            raise InputError(
                f"grammar {quoted(name)} has the template {quoted(template)}: it takes one {{concept}}, and brackets "
                "only around it"
            )
        for slot in _slots(template):
            if slot not in OWN and any(not tables[pool].get(slot) for pool in POOLS):
                raise InputError(
                    f"grammar {quoted(name)} has no words for {{{slot}}} in [train] or in [test]: add both"
                )
    for dimension in tables["train"].keys() & tables["test"].keys():
        if shared := set(tables["train"][dimension]) & set(tables["test"][dimension]):
            raise InputError(
                f"grammar {quoted(name)} has {quoted(sorted(shared)[0])} in both pools of {dimension}: take one out"
            )
