"""What the fuzzer gives to the command line, and what must hold of every answer.

Each reader has a strategy, which makes something odd, and a function that gives it to a command in a box: a new folder
with nothing else in it than a file of the user's own. Whatever came, the command ends with 0, 2 or 130; with 2 it says
why in one line; no traceback; what was in the box is still there, bit for bit; nothing new is outside of the folder
that the command was given to write in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import logging
import re
import shutil
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from hypothesis import reject
from hypothesis import strategies as st

import saved
from unlearnkit.chain import ledger
from unlearnkit.cli import app, main
from unlearnkit.recipes import dump_recipe
from unlearnkit.schema import Concept, Recipe, Request

COUNTS: Counter[str] = Counter()
LINE = 1001  # characters of the line that says what is wrong
PROGRESS = re.compile(r"note: |erasing |evaluating |chain: |.* \d+ of \d+(, about .* left)?$")
LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def command(*words: object) -> Ended:
    """What a command says and how it ends; any exception but the end of the process is a fault."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        logged(err),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(action="ignore"),
    ):
        try:
            main([str(word) for word in words])
        except SystemExit as stopped:
            code = stopped.code or 0
    return Ended(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def logged(file: io.StringIO) -> Iterator[None]:
    """What other libraries log goes to ``file`` too: they write to the stderr that they found when first imported."""
    handler = logging.StreamHandler(file)
    libraries = [logging.getLogger(name) for name in ("diffusers", "transformers", "huggingface_hub")]
    for one in libraries:
        one.addHandler(handler)
    try:
        yield
    finally:
        for one in libraries:
            one.removeHandler(handler)


def held(*words: object, may_write: tuple[str, ...] = ()) -> Ended:
    """Run a command in the working folder, which is a box, and check all that must hold of it."""
    before = contents(Path())
    ended = command(*words)
    assert ended.code in (0, 2, 130), ended
    assert "Traceback" not in ended.err and "Traceback" not in ended.out, ended
    if ended.code == 2 and not ended.out:
        *earlier, last = ended.err.splitlines() or [""]
        assert last.strip() and len(last) <= LINE, ended
        assert all(PROGRESS.match(line) for line in earlier), ended
    said = (ended.out + ended.err).replace("\n", "")
    assert all(one.isprintable() for one in said), ended
    for path, print_ in contents(Path()).items():
        own = path.parts[0] in may_write
        assert own or before.get(path) == print_ or path.name == LOCK, f"{path} was written: {ended}"
        before.pop(path, None)
    assert not [path for path in before if path.parts[0] not in may_write], f"{before} is lost: {ended}"
    return ended


def contents(folder: Path) -> dict[Path, str]:
    """The sha256 of every file below."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextlib.contextmanager
def box() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="unlearnkit-fuzz-") as place, contextlib.chdir(place):
        Path("mine.txt").write_text("years of work")
        yield Path(place)


# what is given, made once


@functools.cache
def hollow() -> Path:
    """A model folder without weights: all that is read before these is read."""
    made = Path(tempfile.mkdtemp(prefix="unlearnkit-hollow-")) / "model"
    shutil.copytree(saved.folder(), made, ignore=shutil.ignore_patterns("*.safetensors"))
    return made


@functools.cache
def edited() -> Path:
    """A finished run without pictures; read-only."""
    made = Path(tempfile.mkdtemp(prefix="unlearnkit-edited-"))
    words = ["erase", saved.folder(), "--concept", "cat", "--method", "uce", "--pictures", "0"]
    assert command(*words, "--no-pipeline", "--out", made / "run").code == 0
    return made / "run"


@functools.cache
def chained() -> Path:
    """A chain of two requests that was not looked at; read-only."""
    made = Path(tempfile.mkdtemp(prefix="unlearnkit-chained-")) / "chain"
    assert command("chain", "init", made, saved.folder(), "--method", "uce", "--pictures", "0").code == 0
    for concept in ("cat", "dog"):
        assert command("chain", "add", made, "--concept", concept).code == 0
    return made


@functools.cache
def evaluated() -> Path:
    """A finished run with its pipeline, an evaluation of a few prompts, and a report; read-only."""
    run = saved.evaluated(Path(tempfile.mkdtemp(prefix="unlearnkit-evaluated-")))
    assert command("report", run).code == 0
    return run


# odd values

DEEP = 3000
VAST = 10**4000  # in TOML, which takes hexadecimal digits, a number of more than Python prints
TEXTS = (
    *(
        "",
        " ",
        "cat",
        "Cat",
        "dog",
        "none",
        "object",
        "style",
        "uce",
        "esd",
        "x",
        "{}",
        "{",
        "[/x]",
        "=",
        "a=b",
        "a,b",
    ),
    *(
        "\x1b[2J",
        "\n",
        "\r\n",
        "\u202e",
        "\u2028",
        "\ufeff",
        "é" * 200,
        "a" * 300,
        "a" * 5000,
        "{}" * 50,
        "%s",
        "$HOME",
    ),
    *(
        ".",
        "..",
        "/",
        "~",
        "~nobody/x",
        "../x",
        "/dev/null",
        "mine.txt",
        "mine.txt/x",
        "none.toml",
        "./none",
        "a/b/c",
    ),
)
NUMBERS = (
    *(
        "0",
        "1",
        "2",
        "-1",
        "3.5",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "-0.0",
        "9" * 5000,
        str(2**31),
        str(2**63),
    ),
    *(str(-(2**63)), "1%", "-5%", "900%", "0x10", "1_000", "٣", "1e", "true"),
)
PAIRS = tuple(
    f"{name}={value}"
    for name in ("steps", "lr", "batch", "ridge", "sentences", "trains", "grammar", "x")
    for value in NUMBERS
)
texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
argument = st.sampled_from(TEXTS + NUMBERS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
)
scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63), 10**400, VAST, 0, 1, -1])
    | st.floats()
    | texts
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def toml(value: Any) -> str:
    """A value as TOML, well formed as far as TOML can say it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return hex(value**2) if value == VAST else str(value)
    if isinstance(value, float):
        return repr(value) if value == value and abs(value) != float("inf") else "nan"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(str(key))} = {toml(one)}' for key, one in value.items())}}}"
    return json.dumps("none" if value is None else value, ensure_ascii=False).replace("\x7f", "\\u007f")


@st.composite
def damaged(draw: Any, whole: bytes) -> bytes:
    """Bytes cut, flipped, doubled or with others in between."""
    at, size = draw(st.integers(0, len(whole))), draw(st.integers(0, 40))
    between = draw(
        st.sampled_from([b"", b"\0", b"\xff", b"[" * DEEP, b'{"a":' * DEEP, b"9" * 5000])
        | st.binary(max_size=20)
    )
    how = draw(st.sampled_from(["cut", "flip", "replace", "front"]))
    if how == "cut":
        return whole[:at]
    if how == "flip":
        return whole[:at] + bytes(255 - one for one in whole[at : at + 1]) + whole[at + 1 :]
    if how == "front":
        return draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b""])) + whole
    return whole[:at] + between + whole[at + size :]


@st.composite
def altered(draw: Any, data: Any) -> Any:
    """A JSON tree with one value or name replaced, removed or buried deep."""
    places = list(paths(data))
    place = draw(st.sampled_from(places)) if places else ()
    value = draw(trees | st.sampled_from(["remove", "bury", "rename"]))
    copy = json.loads(json.dumps(data))
    inner = copy
    for step in place[:-1]:
        inner = inner[step]
    if not place:
        return value
    if value == "remove":
        del inner[place[-1]]
    elif value == "rename" and isinstance(inner, dict):
        inner[draw(texts)] = inner.pop(place[-1])
    elif value == "bury":
        buried: Any = inner[place[-1]]
        for _ in range(draw(st.sampled_from([1, 70, 900]))):
            buried = [buried]
        inner[place[-1]] = buried
    else:
        inner[place[-1]] = value
    return copy


def paths(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from paths(value, (*at, key))


# command lines, from the commands' own options


def leaves(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, one in inner.items():
        yield from leaves(one, (*name, word))


COMMANDS = dict(leaves(typer.main.get_command(app)))
HEAVY = {("canvas", "check"), ("canvas", "paint")}  # they need no input, and minutes or a font
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
    wrong = {path for path, print_ in before.items() if after.get(path) != print_ and path.name != LOCK}
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
    from unlearnkit.errors import InputError
    from unlearnkit.training.grammar import pairs, read

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


# ledgers

READS = (["status"], ["log"], ["verify"], ["report"], ["undo", "--dry-run"], ["drop", "1", "--dry-run"])


@st.composite
def ledgers(draw: Any) -> tuple[bytes, bytes | None, list[str]]:
    """What ledger.jsonl and head.json hold, and the command that reads them; sealed again, or simply damaged."""
    file = chained() / ledger.LEDGER
    after = draw(st.sampled_from(READS))
    if not draw(st.integers(0, 2)):
        return draw(damaged(file.read_bytes())), None, after
    entries: list[ledger.Entry] = []
    number = draw(st.integers(0, 2))
    for place, line in enumerate(file.read_text().splitlines()):
        entry = json.loads(line)
        facts = draw(altered(entry["facts"])) if place == number else entry["facts"]
        kind = draw(st.sampled_from([entry["kind"]] * 8 + ["init", "add", "undo", "drop", "x", ""]))
        try:
            entries.append(ledger.sealed(entries, kind, facts))
        except (ValueError, RecursionError):  # no ledger holds NaN, and none is written so deep
            reject()
    text = "".join(ledger._plain(dataclasses.asdict(entry)) + "\n" for entry in entries)
    return text.encode(), ledger._head(entries[-1]).encode(), after


def as_ledger(given: tuple[bytes, bytes | None, list[str]]) -> None:
    lines, head, (word, *more) = given
    shutil.copytree(chained(), "chain")
    (Path("chain") / ledger.LEDGER).write_bytes(lines)
    if head is not None:
        (Path("chain") / ledger.HEAD).write_bytes(head)
    held("chain", word, "chain", *more, may_write=("report.html",))


# edits


@st.composite
def edits(draw: Any) -> bytes:
    """An edit.safetensors with another header, or damaged."""
    whole = (edited() / "edit.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    how = draw(st.integers(0, 3))
    if how == 0:
        return draw(damaged(whole))
    if how == 1:  # the facts within
        name = next(iter(header["__metadata__"]))
        header["__metadata__"][name] = json.dumps(draw(altered(json.loads(header["__metadata__"][name]))))
        text = json.dumps(header).encode()
    elif how == 2:
        text = draw(damaged(whole[8 : 8 + size]))
    else:
        text = json.dumps(draw(altered(header))).encode()
    told = draw(st.sampled_from([len(text)] * 8 + [0, 1, size, len(text) + 1, 2**31, 2**63, 2**64 - 1]))
    return struct.pack("<Q", told) + text + body


def as_edit(data: bytes) -> None:
    Path("edit.safetensors").write_bytes(data)
    held("generate", "./none", "--prompt", "cat", "--edit", "edit.safetensors", "--out", "out")


# model folders


@functools.cache
def parts() -> tuple[str, ...]:
    """Every file of a model folder."""
    return tuple(
        str(path.relative_to(saved.folder())) for path in sorted(saved.folder().rglob("*")) if path.is_file()
    )


CLASSES = (
    *(
        ["diffusers", "UNet2DModel"],
        ["diffusers", "FluxTransformer2DModel"],
        ["transformers", "T5EncoderModel"],
    ),
    *(
        ["transformers", "BertModel"],
        ["helper", "Thing"],
        ["os", "system"],
        ["torch.nn", "Linear"],
        [None, None],
    ),
    *(["diffusers", "StableDiffusionPipeline"], ["diffusers"], [], None, 3, "x", {}),
)


@st.composite
def models(draw: Any) -> tuple[str, bytes | None]:
    """A file of a model folder and what it holds instead, None where it is missing."""
    name = draw(st.sampled_from(parts()))
    whole = (saved.folder() / name).read_bytes()
    if not draw(st.integers(0, 9)):
        return name, None
    if name == "model_index.json" and draw(st.booleans()):
        index = json.loads(whole)
        index[draw(st.sampled_from(sorted(index)))] = draw(st.sampled_from(CLASSES))
        return name, json.dumps(index).encode()
    if name.endswith(".json") and len(whole) < 10_000 and draw(st.integers(0, 3)):
        return name, json.dumps(draw(altered(json.loads(whole)))).encode()
    return name, draw(damaged(whole))


def as_model(given: tuple[str, bytes | None]) -> None:
    name, data = given
    shutil.copytree(saved.folder(), "model")
    file = Path("model") / name
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    Path("helper.py").write_text("open('it ran', 'w').close()")
    held("generate", "model", "--prompt", "cat", "--steps", "1", "--out", "out", may_write=("out",))
    assert not Path("it ran").exists(), "code of a model folder ran"


@dataclasses.dataclass(frozen=True)
class Reader:
    """given: what it makes. check: gives that to a command. few: cases of it in the normal suite."""

    given: Callable[[], st.SearchStrategy[Any]]
    check: Callable[[Any], None]
    few: int


READERS = {
    "command lines": Reader(lines, on_the_command_line, 150),
    "recipes": Reader(lambda: tables(RECIPE) | tables(TRAINED), as_recipe, 150),
    "grammars": Reader(lambda: tables(GRAMMAR), as_grammar, 150),
    "hints": Reader(lambda: tables(HINTS), as_hints, 100),
    "prompts": Reader(sheets, as_prompts, 150),
    "ledgers": Reader(ledgers, as_ledger, 150),
    "edits": Reader(edits, as_edit, 150),
    "model folders": Reader(models, as_model, 20),
}


def tried(name: str, value: Any) -> None:
    """One case of a reader, in a box of its own."""
    COUNTS[name] += 1
    with box():
        READERS[name].check(value)
