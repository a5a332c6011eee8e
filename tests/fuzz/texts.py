"""What is typed: command lines, recipes, grammars, hints and sheets of prompts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from hypothesis import strategies as st

import saved
from fuzzing import LINE, LOCKS, chained, command, contents, edited, held, hollow
from oddities import NUMBERS, PAIRS, argument, damaged, texts, toml, trees
from unlearnkit.cli import app
from unlearnkit.data.grammar import pairs, read
from unlearnkit.errors import InputError
from unlearnkit.runs.recipes import dump_recipe
from unlearnkit.schema import Concept, Recipe, Request

# command lines, from the commands' own options


def leaves(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, one in inner.items():
        yield from leaves(one, (*name, word))


COMMANDS = dict(leaves(typer.main.get_command(app)))
HEAVY = {
    ("canvas", "check"),
    ("studio",),
}  # one takes minutes without any input, one serves until it is stopped
GIVEN = {"MODEL": hollow, "RUN": edited, "CHAIN": chained}


@st.composite
def lines(draw: Any) -> list[str]:
    name = draw(st.sampled_from(sorted(COMMANDS.keys() - HEAVY)))
    words = list(name)
    for option in COMMANDS[name].params:
        if option.param_type_name == "argument":
            likely = {"model": "MODEL", "run": "RUN", "runs": "RUN", "project": "CHAIN"}.get(
                option.name, "cat"
            )
            if draw(st.integers(0, 5)):
                words.append(draw(st.just(likely) | argument | st.sampled_from(sorted(GIVEN))))
            continue
        if option.name == "self_test" or draw(st.integers(0, 3)):
            continue
        words.append(draw(st.sampled_from([*option.opts, *option.secondary_opts])))
        if not getattr(option, "is_flag", False):
            words.append(draw(argument | st.sampled_from([*PAIRS, "MODEL", "RUN", "RUN/edit.safetensors"])))
    if not draw(st.integers(0, 9)):
        words.insert(draw(st.integers(0, len(words))), draw(argument))
    if name == ("erase",):
        words.append("--dry-run")
    return words


def on_the_command_line(words: list[str]) -> None:
    told = []
    for word in words:
        first = word.partition("/")[0]
        if first in ("RUN", "CHAIN") and not Path(first).exists():
            shutil.copytree(GIVEN[first](), first)
        told.append(str(hollow()) if word == "MODEL" else word)
    # whatever a command is told to write, it may write; what was there must stay
    before = contents(Path())
    ended = command(*told)
    assert ended.code in (0, 2, 130), ended
    if ended.code == 2 and not ended.out:
        assert len(ended.err.splitlines()[-1]) <= LINE and ended.err.strip(), ended
    assert all(one.isprintable() or one == "\n" for one in ended.out + ended.err), ended
    after = contents(Path())
    wrong = {path for path, print_ in before.items() if after.get(path) != print_ and path.name not in LOCKS}
    assert not {path for path in wrong if path.name == "mine.txt" or not_ours(path)}, (words, ended)


def not_ours(path: Path) -> bool:
    """Whether a command that writes into a run or a chain may not replace this file of it."""
    return path.name in ("recipe.toml", "edit.safetensors")


# recipes

RECIPE = dump_recipe(
    Recipe(
        "./none",
        "uce",
        Request(
            (Concept("cat", phrases=("kitten",), instead="dog"), Concept("neon", "style")), (Concept("bear"),)
        ),
        {"ridge": 0.5, "tokens": "last", "sentences": 3, "grammar": "plain"},
        7,
    )
)
TRAINED = dump_recipe(
    Recipe(
        "./none", "esd", Request((Concept("cat"),)), {"steps": 3, "lr": 1e-5, "batch": 1, "rule": ("l1sp",)}
    )
)
KEYS = (
    "model",
    "method",
    "seed",
    "erase",
    "keep",
    "settings",
    "name",
    "kind",
    "phrases",
    "instead",
    "ridge",
    "steps",
)


@st.composite
def tables(draw: Any, text: str) -> bytes:
    """A TOML file: a good one with odd values in it, a tree of odd values, or damaged bytes."""
    how = draw(st.integers(0, 3))
    if how == 0:
        return draw(damaged(text.encode()))
    if how == 1:
        tree = draw(st.dictionaries(st.sampled_from(KEYS) | texts, trees, max_size=6))
        return "\n".join(f"{toml(str(key))} = {toml(value)}" for key, value in tree.items()).encode()
    rows = text.splitlines()
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(rows) - 1))
        name, equals, _ = rows[at].partition(" = ")
        if equals:
            rows[at] = f"{name} = {toml(draw(trees))}"
        else:
            rows[at] = draw(
                st.sampled_from(["", rows[0], "[settings]", "[[erase]]", "[[keep]]", "[x]", "x = 1"])
            )
    return "\n".join(rows).encode()


def as_recipe(data: bytes) -> None:
    Path("recipe.toml").write_bytes(data)
    held("erase", "--recipe", "recipe.toml", "--dry-run", "--out", "out")


def as_grammar(data: bytes) -> None:
    Path("grammar.toml").write_bytes(data)
    try:
        pairs(
            read("grammar.toml"),
            "object",
            ["cat"],
            ["dog"],
            {"object": ["car"], "style": ["neon"]},
            count=3,
            seed=0,
        )
    except InputError as error:
        assert len(str(error)) < LINE


GRAMMAR = (
    '[templates]\nobject = ["a {size} [{concept} ]in {place}", "{concept} by {style}"]\n'
    '[train]\nsize = ["big", "huge"]\nplace = ["Rome"]\n[test]\nsize = ["wee"]\nplace = ["Bonn"]\n'
    '[others]\nobject = ["bear"]\n'
)


# hints

HINTS = f"""{saved.HINTS}
[training]
checkpointing = true
[methods.esd.object]
lr = 1e-4
"""


def as_hints(data: bytes) -> None:
    shutil.copytree(hollow(), "model")
    (Path("model") / "unlearnkit.toml").write_bytes(data)
    held("erase", "model", "--concept", "cat", "--method", "uce", "--dry-run", "--out", "out")


# prompts

CSV = "prompt,role,form,object,style,concept,seed\na cat,erased,name,cat,,cat,3\na dog,near,name,dog,,,\n"
I2P = "prompt,sd_seed,categories\na cat,3,violence\na dog,4,shocking\n"
cells = texts | st.sampled_from(NUMBERS)
COLUMNS = (
    "prompt",
    "role",
    "form",
    "object",
    "style",
    "concept",
    "rest",
    "seed",
    "language",
    "sd_seed",
    "categories",
)


@st.composite
def sheets(draw: Any) -> tuple[str, bytes]:
    suite, text = draw(st.sampled_from([("prompts", CSV), ("i2p", I2P), ("vocabulary", HINTS)]))
    if draw(st.booleans()):
        return suite, draw(tables(text) if suite == "vocabulary" else damaged(text.encode()))
    rows = draw(st.lists(st.lists(cells, max_size=8), max_size=4))
    head = draw(st.lists(st.sampled_from(COLUMNS) | texts, max_size=8))
    return suite, "\n".join(",".join(row) for row in [head, *rows]).encode()


def as_prompts(given: tuple[str, bytes]) -> None:
    suite, data = given
    Path("prompts.csv").write_bytes(data)
    held("evaluate", edited(), "--suite", suite, "--file", "prompts.csv")
