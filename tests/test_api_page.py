"""docs/api.md is what the docstrings and signatures of the public names say."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import unlearnkit
from unlearnkit import chain, export

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """# Python functions and classes

Everything that `unlearnkit`, `unlearnkit.export` and `unlearnkit.chain` export. The page is generated from docstrings
and signatures: `UNLEARNKIT_WRITE=1 python -m pytest tests/test_api_page.py` writes it again. A `Tick` is
called as `tick(stage, done, total)`, an `Advance` as `tick(done, total)`. [index.md](index.md) leads by task,
[glossary.md](glossary.md) explains the terms, [settings.md](settings.md) lists the settings of all methods.

"""


def annotation(value: Any) -> str:
    return value if isinstance(value, str) else inspect.formatannotation(value)


def shown(default: Any) -> str:
    """A default as code has it; one that is long, or made anew for each call, as three dots."""
    text = json.dumps(default, ensure_ascii=False) if isinstance(default, str) else repr(default)
    return "..." if len(text) > 60 or text.startswith("<") else text


def parameters(signature: inspect.Signature) -> Iterator[str]:
    """Each parameter as it is written in code, with a bare ``*`` before the first that has to be named."""
    named = False
    for one in signature.parameters.values():
        if one.name == "self":
            continue
        if one.kind is one.KEYWORD_ONLY and not named:
            yield "*"
        named |= one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        type_ = "" if one.annotation is one.empty else f": {annotation(one.annotation)}"
        default = "" if one.default is one.empty else f" = {shown(one.default)}"
        yield f"{stars}{one.name}{type_}{default}"


def call(name: str, of: Callable[..., Any]) -> str:
    """A call as a block: on one line if it fits, else a line for each parameter."""
    signature = inspect.signature(of)
    given = list(parameters(signature))
    result = signature.return_annotation
    end = "" if result in (signature.empty, None, "None") else f" -> {annotation(result)}"
    line = f"{name}({', '.join(given)}){end}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in given) + f"){end}"
    return f"```\n{line}\n```\n"


ITEM = r"[a-z_]+(?:, [a-z_]+)*: "


def prose(of: object) -> str:
    """A docstring as Markdown; ``name: meaning`` becomes an item of a list, and what is raised a paragraph."""
    text = (inspect.getdoc(of) or "").replace("``", "`")
    if isinstance(of, type) and text.startswith(f"{of.__name__}("):
        text = ""  # made by dataclass
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            parts.append(paragraph)
            continue
        marked = re.sub(rf"(?:^|\n|(?<=\.) )({ITEM})", r"\n\n\1", paragraph)
        marked = re.sub(r"(?<=\.)\s+(Raises? )", r"\n\n\1", marked)
        for part in marked.strip().split("\n\n"):
            line = " ".join(part.split())
            parts.append(re.sub(rf"^({ITEM})", lambda found: f"- `{found[1][:-2]}`: ", line))
    written = ""
    for part in parts:
        written += (
            "\n" if written.rpartition("\n")[2].startswith("- ") and part.startswith("- ") else "\n\n"
        ) + part
    return written.strip("\n") + "\n"


def entry(title: str, value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return f"## `{title}`\n\n{prose(value)}\n"
    if isinstance(value, dict):
        lines = "".join(f"- `{name}`: {one.title}; {one.summary}\n" for name, one in value.items())
        what = title.rpartition(".")[2].lower()
        return f"## `{title}`\n\nAll {what} by name, as dataclasses of their settings.\n\n{lines}\n"
    if isinstance(value, type) and issubclass(value, Exception):
        return f"## `{title}`\n\nAn exception, a kind of `{value.__base__.__name__}`. {prose(value)}\n"
    parts = [f"## `{title}`\n\n{call(title, value)}\n{prose(value)}\n"]
    if dataclasses.is_dataclass(value) and isinstance(value, type):
        fields = [one for one in dataclasses.fields(value) if "doc" in one.metadata]
        parts += [f"- `{one.name}`: {one.metadata['doc']}\n" for one in fields]
        parts += ["\n"] if fields else []
    if isinstance(value, type):
        ours = [base for base in reversed(value.__mro__) if base.__module__.startswith("unlearnkit")]
        for name, own in {name: own for base in ours for name, own in vars(base).items()}.items():
            if name.startswith("_"):
                continue
            if isinstance(own, property) or type(own).__name__ == "cached_property":
                parts.append(f"### `{title}.{name}`\n\n{prose(own)}\n")
            elif callable(own) or isinstance(own, classmethod | staticmethod):
                parts.append(f"### `{title}.{name}`\n\n{call(name, getattr(value, name))}\n{prose(own)}\n")
    return "".join(parts)


def page() -> str:
    parts = [HEAD]
    for name in unlearnkit.__all__:
        if name not in ("__version__", "chain", "export"):
            parts.append(entry(f"unlearnkit.{name}", getattr(unlearnkit, name)))
    for module in (export, chain):
        parts.append(entry(module.__name__, module))
        names = (name for name in module.__all__ if name not in unlearnkit.__all__ or module is chain)
        parts += [entry(f"{module.__name__}.{name}", getattr(module, name)) for name in names]
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).rstrip() + "\n"


def test_every_public_function_and_class_has_a_docstring() -> None:
    for module in (unlearnkit, chain, export):
        for name in module.__all__:
            value = getattr(module, name)
            documented = prose(value).strip() or dataclasses.is_dataclass(value)
            assert not callable(value) or documented, f"{module.__name__}.{name}"


def test_the_page_is_what_the_docstrings_say() -> None:
    found = page()
    if os.environ.get("UNLEARNKIT_WRITE"):
        PAGE.write_text(found, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == found, "write it again: UNLEARNKIT_WRITE=1 and this test"
