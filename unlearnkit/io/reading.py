"""Read files from outside, with bounds on size, depth and numbers, and one-line errors.

All JSON, TOML, text and image files are read here, so that damaged, enormous or hostile files get the same errors
everywhere. ``what`` names the file in a message, for example ``"recipe"``. ``error`` is the class that is raised.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError, UnlearnError, quoted, reason

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "parse_json",
    "parse_toml",
    "read_bytes",
    "read_json",
    "read_lines",
    "read_picture",
    "read_text",
    "read_toml",
    "typed",
]

T = TypeVar("T")

MOST = 256 * 2**20  # bytes of a text file
PIXELS = 2**26  # of a picture: 8192 x 8192
DEPTH = 64  # of nested lists and tables
WHOLE = 2**63  # whole numbers are smaller
_WORDS = {
    dict: "a table",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}

Error = type[UnlearnError]


def read_bytes(path: str | Path, *, what: str, most: int = MOST, error: Error = InputError) -> bytes:
    """The bytes of a regular file. Raises ``error`` where it is missing, unreadable or over ``most`` bytes."""
    try:
        # not blocking: else a named pipe would be waited for
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise error(f"{what} {quoted(path)} cannot be read: it is no regular file")
            data = file.read(most + 1)
    except OSError as problem:
        raise error(f"{what} {quoted(path)} cannot be read: {reason(problem)}") from None
    except ValueError:  # a zero byte in the name
        raise error(f"{what} {quoted(path)} cannot be read: it is no file name") from None
    if len(data) > most:
        raise error(f"{what} {quoted(path)} is too large: at most {most / 2**20:.3g} MiB are read")
    return data


def read_text(path: str | Path, *, what: str, most: int = MOST, error: Error = InputError) -> str:
    """The text of a UTF-8 file, without a BOM. Raises ``error`` as ``read_bytes``, or if it is not UTF-8."""
    data = read_bytes(path, what=what, most=most, error=error)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(
            f"{what} {quoted(path)} is not UTF-8 text (byte {problem.start}): save it as UTF-8"
        ) from None


def read_json(
    path: str | Path, *, what: str, kind: type[T], error: Error = InputError, largest: int = WHOLE
) -> T:
    """The content of a JSON file, of type ``kind`` (``dict`` or ``list``). Raises ``error`` for anything else.

    largest: whole numbers are smaller; transformers writes 10**30 for a tokenizer without a length.
    """
    text, where = read_text(path, what=what, error=error), f"{what} {quoted(path)}"
    return parse_json(text, kind=kind, where=where, error=error, largest=largest)


def read_lines(path: str | Path, *, what: str, error: Error = InputError) -> list[dict[str, Any]]:
    """The tables of a JSON Lines file, one a line. Raises ``error`` naming the first line that is no table."""
    # not splitlines, which also splits at U+2028: a prompt may contain it
    lines = read_text(path, what=what, error=error).split("\n")
    if lines.pop():
        raise error(f"{what} {quoted(path)} is damaged: its last line is cut short")
    where = f"{what} {quoted(path)}, line"
    return [parse_json(line, kind=dict, where=f"{where} {n}", error=error) for n, line in enumerate(lines, 1)]


def parse_json(
    text: str | bytes, *, kind: type[T], where: str, error: Error = InputError, largest: int = WHOLE
) -> T:
    """Parsed JSON of type ``kind``; ``where`` is what a message calls it. Raises ``error`` for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{where} is damaged: it is not JSON ({_short(problem)})") from None
    return _bounded(data, kind, where, error, largest)


def read_toml(path: str | Path, *, what: str, error: Error = InputError) -> dict[str, Any]:
    """The table of a TOML file. Raises ``error`` for a file that cannot be read or is not TOML."""
    return parse_toml(read_text(path, what=what, error=error), where=f"{what} {quoted(path)}", error=error)


def parse_toml(text: str, *, where: str, error: Error = InputError) -> dict[str, Any]:
    """The table of a TOML text; ``where`` is what a message calls it. Raises ``error`` for anything else."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{where} is not TOML: {_short(problem)}") from None
    return _bounded(data, dict, where, error)


def read_picture(path: str | Path, *, what: str = "picture", error: Error = InputError) -> Image.Image:
    """A decoded image; ``.text`` has a PNG's text chunks.

    Raises ``error`` for anything else, and for an image of over 64 megapixels.
    """
    import io

    from PIL import Image

    data, where = read_bytes(path, what=what, error=error), f"{what} {quoted(path)}"
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            file = Image.open(io.BytesIO(data))
        if file.width * file.height > PIXELS:
            raise Image.DecompressionBombError
        file.load()
    except Image.DecompressionBombError:
        raise error(f"{where} is too large: at most {PIXELS // 2**20} megapixels are read") from None
    except (OSError, SyntaxError, ValueError) as problem:
        raise error(f"{where} is damaged or no picture ({_short(problem)})") from None
    return file


def typed(data: Any, types: dict[str, Any], *, where: str, error: Error = InputError) -> Any:
    """``data`` if it is a table with values of these types; it may have further entries.

    types: by name a type or a tuple of types. A whole number passes as ``float``; true and false are no numbers.
    Raises ``error`` naming the first value that is missing or of another type.
    """
    if not isinstance(data, dict):
        raise error(f"{where} is damaged: it is {quoted(data)} where a table belongs")
    for name, kind in types.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if name not in data:
            raise error(f"{where} is damaged: it has no {name!r}")
        value = data[name]
        number = type(value) is int and float in kinds
        if not number and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            allowed = " or ".join(_WORDS.get(one, "nothing") for one in kinds)
            raise error(f"{where} is damaged: {name!r} is {quoted(value)}, not {allowed}")
    return data


def _bounded(data: Any, kind: type[T], where: str, error: Error, largest: int = WHOLE) -> T:
    """``data`` if it is a ``kind``, not nested too deeply, and without too large whole numbers."""
    if not isinstance(data, kind):
        raise error(
            f"{where} is damaged: it holds {quoted(data)} where {_WORDS.get(kind, kind.__name__)} belongs"
        )
    level: list[Any] = [data]
    for _ in range(DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, int) and abs(one) >= largest:
                raise error(
                    f"{where} holds a whole number of over {largest.bit_length() - 1} bits: give a smaller one"
                )
        if not inner:
            return data
        level = inner
    raise error(f"{where} is nested more than {DEPTH} levels deep: give a flatter one")


def _short(problem: BaseException) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= 200 else text[:199] + "…"
