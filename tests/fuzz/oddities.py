"""Odd values, and odd changes of what was good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

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
