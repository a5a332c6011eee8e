"""docs/settings.md is what the methods declare: every setting once."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from unlearnkit import known
from unlearnkit.attacks import ATTACKS, BUDGETS
from unlearnkit.chain.guards import Guards
from unlearnkit.chain.merging import Merge
from unlearnkit.evaluation.plan import Rules
from unlearnkit.families.opening import DTYPES
from unlearnkit.methods import METHODS
from unlearnkit.settings import Setting, describe, setting
from unlearnkit.suites import SUITES
from unlearnkit.training.settings import Training
from unlearnkit.training.shared import Shared

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """# Settings

Every setting of every method, listed once. A name means the same in every method.

- Command line: `--set NAME=VALUE`. Python: `unlearnkit.erase(..., NAME=VALUE)`. Recipe: the table `[settings]`.
- `unlearnkit methods NAME` lists the settings of one method.
- The value that counts is the first of these: yours, the method's section in the model's `unlearnkit.toml`, its section
  `[training]`, the default of the model's family, the default in the table below.
- The source says where a default is from: a paper, its released code, or *ours* (chosen here, mostly on the canvas).
  [PAPERS.md](../PAPERS.md) has the reasons.

The page is generated from what the methods declare: `UNLEARNKIT_WRITE=1 python -m pytest tests/test_settings_page.py`.
[glossary.md](glossary.md) explains the terms.
"""
WORDS = dict.fromkeys(known.METHOD, "x")
TABLE = "\n| setting | default | range | meaning | source |\n|---|---|---|---|---|\n"


def declared() -> dict[str, dict[str, Setting]]:
    """By name of a setting and of a method."""
    found: dict[str, dict[str, Setting]] = {}
    for method, cls in METHODS.items():
        for one in describe(cls):
            found.setdefault(one.name, {})[method] = one
    return found


def grouped(values: Iterable[tuple[str, str]]) -> str:
    """What differs, and for which methods; what is the same for all, or for nearly all of many, without their names."""
    by: dict[str, list[str]] = {}
    for method, value in values:
        by.setdefault(value, []).append(method)
    several = sorted(by.items(), key=lambda one: -len(one[1]))
    if len(several) == 1:
        return several[0][0]
    most = len(several[0][1]) > 4
    first = [f"{several[0][0]} for the others"] if most else []
    return "; ".join([*(f"{', '.join(names)}: {value}" for value, names in several[most:]), *first])


def written(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or value in ((), ""):
        return "none"
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


def row(name: str, by: dict[str, Setting]) -> str:
    cells = [
        grouped((method, written(one.default)) for method, one in by.items()),
        *(
            grouped((method, getattr(one, what)) for method, one in by.items())
            for what in ("allowed", "doc", "source")
        ),
    ]
    return f"| `{name}` | {' | '.join(cells)} |"


def page() -> str:
    found = declared()
    common = [one.name for one in describe(Training)]
    shared = [one.name for one in describe(Shared)]
    shared += [name for name, by in found.items() if len(by) > 1 and name not in (*common, *shared)]
    parts = [HEAD, "\n## Of every method that trains\n", TABLE]
    parts += [row(name, found[name]) + "\n" for name in common]
    parts += [
        "\n## Of several methods\n",
        TABLE.replace("| setting |", "| setting | methods |").replace("|---|", "|---|---|", 1),
    ]
    for name in shared:
        cells = row(name, found[name]).split(" | ", 1)
        parts.append(f"{cells[0]} | {', '.join(found[name])} | {cells[1]}\n")
    for method, cls in METHODS.items():
        own = [name for name in found if next(iter(found[name])) == method and name not in (*common, *shared)]
        if own:
            parts += [f"\n## Of {method}\n", f"\n{cls.title}. {cls.summary}\n", TABLE]
            parts += [row(name, found[name]) + "\n" for name in own]
    for title, cls, option in (("guards", Guards, "--guard"), ("merging", Merge, "--merge")):
        parts += [
            f"\n## Of chains: {title}\n\nGiven with `{option} NAME=VALUE`; see [chain.md](chain.md).\n",
            TABLE,
        ]
        parts += [row(one.name, {title: one}) + "\n" for one in describe(cls)]
    return "".join(parts)


def test_a_name_means_the_same_in_every_method() -> None:
    for name, by in declared().items():
        meanings = {(one.doc, one.type, one.range) for one in by.values()}
        assert len(meanings) == 1 or name == "target", name  # what the concept becomes is each method's own


def test_the_page_has_every_setting_once_and_is_what_is_declared() -> None:
    found = page()
    if os.environ.get("UNLEARNKIT_WRITE"):
        PAGE.write_text(found, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == found, "make it anew: UNLEARNKIT_WRITE=1 and this test"
    methods = found.partition("## Of chains")[0]
    for name in declared():
        assert methods.count(f"\n| `{name}` |") == 1, name


def test_what_the_command_line_knows_without_torch_is_what_is_declared() -> None:
    others = {"guards": Guards, "merge": Merge, "rules": Rules}
    names = {
        "suite": {name: suite.summary for name, suite in SUITES.items()},
        "attack": {name: attack.summary for name, attack in ATTACKS.items()},
        "budget": dict.fromkeys(BUDGETS, ""),
        "dtype": dict.fromkeys(DTYPES, ""),
    }
    assert tuple(names) == known.NAMES
    table = known.table(METHODS, others, names)
    if os.environ.get("UNLEARNKIT_WRITE"):
        known.FILE.write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    assert json.loads(known.FILE.read_text("utf-8")) == table, (
        "make it anew: UNLEARNKIT_WRITE=1 and this test"
    )
    assert list(known.methods()) == list(METHODS)
    for name, cls in METHODS.items():
        assert describe(known.find(name)) == describe(cls)
        assert all(getattr(known.find(name), word) == getattr(cls, word) for word in known.METHOD)
    for name, cls in others.items():
        assert describe(known.settings_of(name)) == describe(cls)


def test_equal_numbers_of_other_types_are_other_defaults() -> None:
    one = dataclasses.make_dataclass("one", [("x", float, setting(1.0, "size"))], namespace=WORDS)
    two = dataclasses.make_dataclass("two", [("x", int, setting(1, "size"))], namespace=WORDS)
    written = known.table({"one": one, "two": two}, {}, {})
    assert written["methods"]["one"]["settings"] == {"x": {}}
    assert written["methods"]["two"]["settings"] == {"x": {"type": "int", "default": 1}}
