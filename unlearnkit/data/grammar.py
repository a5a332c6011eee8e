"""Diverse prompts in pairs, with the concept and without, from a grammar of dimensions (Ko et al. 2024, section 4).

A grammar is a TOML file, one of ``grammars/`` or the user's own:

    [templates]     by kind, each with ``{concept}`` and any dimensions: "a {mood} [{concept} ]person {place}"
    [train] [test]  the words of each dimension, in two disjoint pools; {object} and {style} are the words of the
                    model's vocabulary, all of them in both pools
    [others]        by kind, further words that may replace the concept

The retain prompt leaves out the part in brackets. Without brackets, another word replaces the concept. The rest of the
two prompts is the same. Templates and other words are used in turn: with one draw over all sentences, a template of few
words would be rare.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from .. import seeds
from ..errors import InputError, nearest, printable, quoted
from ..io.files import user_path
from ..io.reading import read_toml
from ..schema import KINDS
from .wording import contains_word, fix_articles, sealed

__all__ = ["GRAMMARS", "Grammar", "Pool", "forms", "pairs", "read", "read_without"]

Pool = Literal["train", "test"]
POOLS: tuple[Pool, ...] = ("train", "test")
FOLDER = Path(__file__).parent / "grammars"
GRAMMARS = ("plain", "people", "scenes")
LONGEST = 1000  # characters of a template or word
COMBINATIONS = 10_000_000  # of the words of a template's dimensions
VOCABULARY_SLOTS = ("object", "style")  # dimensions that the model's vocabulary fills


@dataclass(frozen=True)
class Grammar:
    """templates: by kind. words: by pool and dimension. others: by kind."""

    templates: Mapping[str, tuple[str, ...]]
    words: Mapping[str, Mapping[str, tuple[str, ...]]]
    others: Mapping[str, tuple[str, ...]]


def read(name: str) -> Grammar:
    """The grammar of this name, or in the TOML file at this path. Raises InputError for an invalid one."""
    path = FOLDER / f"{name}.toml" if name in GRAMMARS else user_path(name)
    with contextlib.suppress(PermissionError):  # read_toml reports it
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


def read_without(name: str, erased: Collection[str]) -> Grammar:
    """``read`` without the words and templates that contain one of the erased words."""
    grammar, words = read(name), tuple(erased)

    def kept(table: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        return {
            key: tuple(text for text in texts if not contains_word(re.sub(r"{.*?}", "", text), words))
            for key, texts in table.items()
        }

    pools: dict[str, Mapping[str, tuple[str, ...]]] = {pool: kept(grammar.words[pool]) for pool in POOLS}
    return Grammar(kept(grammar.templates), pools, kept(grammar.others))


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
    """``count`` pairs (prompt to erase, retain prompt), of each template in turn, different while its words last.

    wordings: of the concept, used in turn. others: retained words of its kind, which replace it. vocabulary: words for
    {object} and {style}, without erased ones. share: of pairs in which another word replaces a concept in brackets.
    Raises InputError if a dimension or ``others`` is empty.
    """
    draws = seeds.stream(seed, "grammar", pool, *wordings)
    sentences = _sentences(grammar, kind, vocabulary, pool, count, draws)
    others = [*others, *grammar.others.get(kind, ())]
    if not others and (share > 0 or any("[" not in template for template in grammar.templates[kind])):
        raise InputError(
            "no other word can replace the concept: give one with --keep, or a larger vocabulary"
        )
    result, queue = [], list[int]()
    for number, sentence in sentences:
        instead = None
        if float(torch.rand((), generator=draws)) < share or "[" not in sentence:
            queue = queue or torch.randperm(len(others), generator=draws).tolist()
            instead = others[queue.pop()]
        result.append((_filled(sentence, wordings[number % len(wordings)]), _filled(sentence, instead)))
    return result


def forms(
    grammar: Grammar,
    kind: str,
    vocabulary: Mapping[str, Sequence[str]],
    *,
    count: int,
    seed: int,
    pool: Pool = "train",
) -> tuple[str, ...]:
    """At most ``count`` different sentences of a pool, of each template in turn, ``{}`` for the concept.

    Raises InputError as ``pairs`` does.
    """
    draws = seeds.stream(seed, "grammar", kind)
    sentences = (
        _filled(sentence, "{}") for _, sentence in _sentences(grammar, kind, vocabulary, pool, count, draws)
    )
    return tuple(dict.fromkeys(sentences))


def _sentences(
    grammar: Grammar,
    kind: str,
    vocabulary: Mapping[str, Sequence[str]],
    pool: Pool,
    count: int,
    draws: torch.Generator,
) -> list[tuple[int, str]]:
    """``count`` sentences with ``{concept}`` in them, each with a number that chooses the concept's wording."""
    known = {slot: [sealed(word) for word in words] for slot, words in vocabulary.items()}
    words, templates = {**known, **grammar.words[pool]}, grammar.templates.get(kind, ())
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
    sentences = []
    for number in range(count):
        cycle, k = divmod(number, len(templates))
        repeat, index = divmod(cycle, len(orders[k]))
        sentences.append((k + cycle + repeat, _sentence(templates[k], words, orders[k][index])))
    return sentences


def _sentence(template: str, words: Mapping[str, Sequence[str]], index: int) -> str:
    """The template with the combination ``index`` of its dimensions' words, and ``{concept}`` still in it."""
    for slot in _slots(template):
        index, place = divmod(index, len(words[slot]))
        template = template.replace(f"{{{slot}}}", words[slot][place])
    return template


def _filled(sentence: str, word: str | None) -> str:
    """The sentence with the word, or without its part in brackets."""
    if word is None:
        sentence = re.sub(r"\[.*?\]", "", sentence)
    text = re.sub(r"[\[\]]", "", sentence).replace("{concept}", sealed(word or ""))
    return fix_articles(text)


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
            if slot not in VOCABULARY_SLOTS and any(not tables[pool].get(slot) for pool in POOLS):
                raise InputError(
                    f"grammar {quoted(name)} has no words for {{{slot}}} in [train] or in [test]: add both"
                )
    for dimension in tables["train"].keys() & tables["test"].keys():
        if shared := set(tables["train"][dimension]) & set(tables["test"][dimension]):
            raise InputError(
                f"grammar {quoted(name)} has {quoted(sorted(shared)[0])} in both pools of {dimension}: take one out"
            )
