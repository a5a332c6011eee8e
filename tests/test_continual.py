"""The benchmark of sequences, at toy size: it resumes, makes no row twice, and its page follows from its rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from saved import tools
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import continual
import continual_table


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two contenders and two requests, without the canvas's guide."""
    monkeypatch.setattr(continual, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(continual, "ROWS", tmp_path / "rows.jsonl")
    monkeypatch.setattr(continual, "MATCH", {})
    monkeypatch.setattr(continual, "COLLAPSED", 0.0)
    monkeypatch.setattr(continual, "SEQUENCES", {"objects": [Concept("cat"), Concept("car")]})
    few = {"steps": 1, "batch": 1, "start_steps": 2}
    made = {
        "uce": continual.Contender("uce"),
        "esd, replay": continual.Contender(settings=few, guards={"replay": 1}),
    }
    monkeypatch.setattr(continual, "CONTENDERS", made)
    monkeypatch.setattr(continual_table, "DOCS", tmp_path)
    return tmp_path


def test_cells_go_on_and_the_page_follows_from_the_rows(toy: Path, model: Model) -> None:
    eye = tools()
    wanted = list(continual.cells(["uce", "esd, replay"], ["objects"], 0))
    assert continual.run(wanted[0], model, eye, 1, requests=1) == "done"
    assert len(continual.rows()) == 1
    for cell in (*wanted, *wanted):
        assert continual.run(cell, model, eye, 1) == "done"
    rows = continual.rows()
    assert [row["concept"] for row in rows] == ["cat", "car", "cat", "car"]
    assert rows[0]["past"] == {"k": 0, "n": 0}
    assert rows[1]["all"]["n"] == rows[1]["past"]["n"] + rows[1]["current"]["n"]
    assert rows[1]["bytes"] > rows[0]["bytes"]
    text = continual_table.write(rows).read_text(encoding="utf-8")
    assert text.count("| uce |") == text.count("| esd, replay |") == 1
    with Image.open(toy / "continual.png") as picture:
        assert picture.size == (1320, 330)  # a row of three plots
    assert set(continual_table.ranked(rows)) == {"uce", "esd, replay"}
    best = list(continual.cells(["uce", "esd, replay"], ["objects"], 1))
    assert {cell.contender for cell in best} == {continual_table.ranked(rows)[0]}
    both = [cell.contender for cell in continual.cells(["uce", "esd, replay"], ["objects"], 2)]
    assert (both.count("uce"), both.count("esd, replay")) == (3, 6), "another seed is the same closed form"


def test_a_collapsed_contender_is_dropped(toy: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continual, "COLLAPSED", 1e9)
    (cell,) = continual.cells(["uce"], ["objects"], 0)
    told = continual.run(cell, model, tools(), 1)
    rows = continual.rows()
    before = [
        rates["before"]["value"] for group, rates in rows[0]["kept"].items() if group.startswith("unrelated")
    ]
    assert told == ("collapsed after 1" if any(before) else "done")


def test_orders_are_the_same_every_time() -> None:
    one, two = (continual.Cell("esd", "objects", order, 0).requests() for order in (0, 1))
    assert [concept.name for concept in one] == list(continual.OBJECTS)
    assert two != one
    assert sorted(concept.name for concept in two) == sorted(concept.name for concept in one)
    assert len(continual.SEQUENCES["mixed"]) == 10


def test_what_was_made_again_stands_alone() -> None:
    def row(contender: str, sequence: str, **more: str) -> dict[str, object]:
        return {"key": {"cell": {"contender": contender, "sequence": sequence}} | more}

    old, other, elsewhere = row("a", "objects"), row("b", "objects"), row("a", "styles")
    new = row("a", "objects", **{"drawn by": "DPM"})
    assert continual_table.standing([old, new, other, elsewhere]) == [new, other, elsewhere]


def test_figures_of_the_table_by_hand() -> None:
    def rate(k: int, n: int) -> dict[str, float]:
        return {"k": k, "n": n, "value": k / n}

    row = {
        "key": {
            "cell": {"contender": "a", "sequence": "objects", "order": 0, "seed": 0},
            "request": 3,
            "base": "b",
            "pictures": 5,
            "drawn by": "x, 10 steps",
        },
        "current": rate(1, 20),
        "past": {"k": 3, "n": 60},
        "all": {"k": 4, "n": 80},
        "relapse": 0.1,
        "kept": {
            "near objects": {"before": rate(20, 20), "after": rate(10, 20)},
            "unrelated objects": {"before": rate(60, 60), "after": rate(54, 60)},
            "unrelated styles": {"before": rate(40, 50), "after": rate(36, 50)},
        },
        "alignment": None,
        "kid": 0.25,
        "drift": 0.125,
        "seconds": 12.0,
        "bytes": 2_000_000,
    }
    (line,) = [one for one in continual_table._table([row]) if one.startswith("| a |")]
    cells = [one.strip() for one in line.strip("|").split("|")]
    assert [cell.split(" ")[0] for cell in cells] == [
        *("a", "1", "4", "95.0", "95.0", "10"),
        *("80.0", "90.0", "50.0", "–", "0.25", "0.125", "12", "2.0"),
    ]
