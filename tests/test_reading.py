"""Files from outside: whatever they hold, the answer is data of the right type or one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from unlearnkit.errors import InputError, ModelError, printable, quoted
from unlearnkit.io.reading import read_bytes, read_json, read_lines, read_picture, read_text, read_toml, typed


def refusal(call: object, *words: object, **named: object) -> str:
    with pytest.raises(InputError) as raised:
        call(*words, **named)  # type: ignore[operator]
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nothing", "does not exist"),
        ("folder", "it is a folder|no regular file"),
        ("pipe", "no regular file"),
        ("é" * 200, "too long"),
        ("a\0b", "no file name"),
        ("file/inside", "a part of its path is a file"),
    ],
)
def test_what_is_no_readable_file_is_named(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    said = refusal(read_bytes, tmp_path / name, what="recipe")
    assert any(one in said for one in why.split("|")) and said.startswith("recipe ")


def test_a_file_over_the_bound_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 11)
    assert read_bytes(tmp_path / "a", what="file", most=11) == b"x" * 11
    assert "too large" in refusal(read_bytes, tmp_path / "a", what="file", most=10)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_toml(tmp_path / "a.toml", what="recipe") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "not JSON"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "nested"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"a": 9223372036854775808}', "63 bits"),
        ("[1]", "a list|table"),
        ("null", "table"),
        ('{"a": ', "not JSON"),
    ],
)
def test_json_is_bounded_and_of_the_type_that_is_asked_for(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.json").write_text(text)
    said = refusal(read_json, tmp_path / "a.json", what="plan", kind=dict)
    assert any(one in said for one in why.split("|"))
    assert len(said) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 1000 + "]" * 1000, "a = 0x" + "f" * 5000, "a = " + "9" * 5000, "a = [" * 3]
)
def test_toml_is_bounded_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert len(refusal(read_toml, tmp_path / "a.toml", what="recipe")) < 400 + len(str(tmp_path))


def test_the_error_class_is_the_callers(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(ModelError, match="not UTF-8"):
        read_text(tmp_path / "a", what="hints", error=ModelError)


def test_json_lines_name_the_line_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"prompt": "a\u2028b"}\n{}\n')
    assert read_lines(tmp_path / "a", what="log") == [{"prompt": "a\u2028b"}, {}]
    (tmp_path / "a").write_text("{}\n[1]\n")
    assert "line 2" in refusal(read_lines, tmp_path / "a", what="log")
    (tmp_path / "a").write_text("{}\n{}")
    assert "cut short" in refusal(read_lines, tmp_path / "a", what="log")


def test_a_picture_comes_with_its_text(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("unlearnkit", "{}")
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "a.png", pnginfo=chunks)
    picture = read_picture(tmp_path / "a.png")
    assert picture.text == {"unlearnkit": "{}"}
    assert np.asarray(picture).tolist() == [[[1, 2, 3]] * 4] * 3
    data = (tmp_path / "a.png").read_bytes()
    for cut in range(data.index(b"IDAT") + 8):
        (tmp_path / "cut.png").write_bytes(data[:cut])
        refusal(read_picture, tmp_path / "cut.png")


def test_an_enormous_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    assert "megapixels" in refusal(read_picture, tmp_path / "a.png")


def test_typed_names_the_first_value_of_another_type() -> None:
    data = json.loads('{"a": 1, "b": true, "c": null, "d": 0.5}')
    assert typed(data, {"a": float, "c": (str, type(None)), "d": float}, where="facts") is data
    assert "'b' is True" in refusal(typed, data, {"a": int, "b": int}, where="facts")
    assert "no 'e'" in refusal(typed, data, {"e": int}, where="facts")
    assert "table" in refusal(typed, [1], {"a": int}, where="facts")


def test_a_quoted_value_is_short_and_moves_no_cursor() -> None:
    assert quoted("cat") == "'cat'"
    assert quoted("\x1b[2J\n\u202e") == r"'\x1b[2J\n\u202e'"
    assert len(quoted("x" * 10_000)) == 80
    path = Path("/a" * 100) / "picture.png"
    assert len(quoted(path)) == 160 and quoted(path).endswith("/picture.png'")
    assert quoted(10**5000) == "a int that is too large to print"
    assert printable("a\nb\x1b]0;x\x07") == r"a\nb\x1b]0;x\x07"
