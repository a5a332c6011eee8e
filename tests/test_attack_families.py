"""Every attack on tiny pipelines of every family's real classes, and that no attack can see what judges it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from quick import brief

import kinds
from tiny import HINTS
from unlearnkit.attacks import ATTACKS, Budget, Victim
from unlearnkit.attacks.drawing import batches, draw_attempts
from unlearnkit.families import FAMILIES
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept

PAGE = Path(__file__).parent.parent / "docs" / "attacks.md"
TITLES = [family.TITLE for family in FAMILIES]
TINY = Budget("tiny", steps=1, batch=1, candidates=2, pictures=1, examples=1)
MARK = "<!-- tests/test_attack_families.py makes this table -->\n"


def opened(title: str, words: Path) -> Model:
    return Model(kinds.pipeline(title, words), source="tiny", hints=replace(HINTS, size=16))


@pytest.mark.parametrize("title", TITLES)
def test_every_attack_that_makes_sense_runs(title: str, words: Path):
    model = opened(title, words)
    before = model.fingerprint()
    name = model.classes[0] if model.classes else "cat"
    worn = {name: 1.1 * value.detach() for name, value in list(model.weights("all").items())[:4]}
    for attack in map(brief, ATTACKS):
        if attack.refuses(model):
            continue
        victim = Victim(model, Concept(name), TINY, applied=worn)
        found = attack.search(victim)
        for numbers in batches(found.attempts, 8):
            group = [found.attempts[number] for number in numbers]
            assert len(draw_attempts(victim, found, group)) == len(group), attack.name
        assert model.fingerprint() == before, attack.name


def table(words: Path) -> str:
    """What each attack does, and which family it fits, with the reasons of those that do not."""
    models, reasons = {title: opened(title, words) for title in TITLES}, list[str]()
    lines = ["| attack | line | what it does |", "|---|---|---|"]
    lines += [f"| `{name}` | {one.group} | {one.title}: {one.summary} |" for name, one in ATTACKS.items()]
    lines += ["", "Which attack fits which family of models:", ""]
    lines += [f"| attack | {' | '.join(TITLES)} |", "|---|" + "---|" * len(TITLES)]
    for name, attack in ATTACKS.items():
        cells = []
        for title in TITLES:
            why = attack.refuses(models[title])
            if why and why not in reasons:
                reasons.append(why)
            cells.append(f"no ({reasons.index(why) + 1})" if why else "yes")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    notes = [f"{number}. {why}." for number, why in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes]) + "\n"


def test_the_table_of_attacks_and_families_is_what_happens(words: Path):
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(MARK)
    assert rest, "docs/attacks.md lacks the mark of the table"
    tail = re.split(r"\n(?=## )", rest, maxsplit=1)[1]
    found = f"{head}{MARK}{table(words)}\n{tail}"
    if os.environ.get("UNLEARNKIT_WRITE"):
        PAGE.write_text(found, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == found, "make it anew: UNLEARNKIT_WRITE=1 and this test"


def test_the_page_names_every_attack():
    assert {name for name in ATTACKS if f"| `{name}` | yes" not in PAGE.read_text(encoding="utf-8")} == set()


def test_no_attack_can_see_the_classifier_that_judges():
    """Their source; what is loaded with them is looked at in ``test_ambient.py``."""
    folder = Path(__file__).parent.parent / "unlearnkit" / "attacks"
    for path in folder.glob("*.py"):
        assert not re.search(r"held_out|metrics\.evaluators|canvas\.evaluators", path.read_text()), path
        assert len(path.read_text().splitlines()) <= 100 or path.stem in ("attack", "result", "words"), path
