"""What takes an erased concept's place in a chain is never something that the chain erases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quick import quick
from test_chain import begun

from unlearnkit import chain
from unlearnkit.chain.facts import changes
from unlearnkit.chain.ledger import LEDGER, Entry
from unlearnkit.chain.places import replaced
from unlearnkit.chain.project import open_chain
from unlearnkit.methods import edit_for
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request

METHODS = ("uce", "esd")


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, model: Model, monkeypatch: pytest.MonkeyPatch) -> str:
    """A method for which the model's hints put the nearest word in an object's place."""
    name: str = request.param
    hints = replace(model.hints, methods={name: {"object": {"instead": "nearest"}}})
    monkeypatch.setattr(model, "hints", hints)
    return name


def started(folder: Path, model: Model, method: str, regime: str = "sequential") -> Path:
    settings: dict[str, Any] = quick(method, 2) | ({"templates": True} if method == "uce" else {})
    return begun(folder, model, regime, method=method, settings=settings, guards={"bank": 2, "replay": 2})


def test_a_place_that_is_erased_is_given_up(method: str, model: Model, tmp_path: Path) -> None:
    project = started(tmp_path / "p", model, method)
    place = chain.add(project, "cat", model=model).facts["instead"]["cat"]
    entry = chain.add(project, place, model=model)
    both = entry.facts["instead"]
    assert both.keys() == {"cat", place}
    assert both["cat"] not in ("cat", place)
    assert both[place] not in ("cat", place)
    assert [one.name for one in open_chain(project).steps[1].request.erase] == [place]
    assert chain.status(project).displaced == {}
    third = chain.add(project, next(iter({"dog", "bear", "car"} - {place, both["cat"]})), model=model)
    assert third.facts["instead"].keys() == {open_chain(project).steps[2].request.erase[0].name}


def test_the_edit_is_that_of_both_from_the_same_model(method: str, model: Model, tmp_path: Path) -> None:
    project = started(tmp_path / "p", model, method)
    place = chain.add(project, "cat", instead="dog", model=model).facts["instead"]["cat"]
    assert place == "dog"
    before = chain.edit(project, model=model)
    entry = chain.add(project, "dog", model=model, guards={"bank": 0, "replay": 0})
    recipe = open_chain(project).steps[1].recipe
    erase = tuple(Concept(name, instead=entry.facts["instead"][name]) for name in ("dog", "cat"))
    with model.wearing(before):
        by_hand = edit_for(
            model.with_hints(replace(model.hints, objects=("bear", "car"))),
            Request(erase),
            method=method,
            settings=recipe["settings"],
        )
    assert entry.facts["edit"]["hash"] == by_hand.hash()


def test_taken_back_it_is_as_before(method: str, model: Model, tmp_path: Path) -> None:
    project = started(tmp_path / "p", model, method)
    first = chain.add(project, "cat", model=model)
    place = first.facts["instead"]["cat"]
    chain.add(project, place, model=model)
    assert chain.undo(project, model=model).facts["weights"] == first.facts["weights"]
    chain.add(project, place, model=model)
    dropped = chain.drop(project, 1, model=model)
    alone = chain.add(started(tmp_path / "alone", model, method), place, model=model)
    assert dropped.facts["weights"] == alone.facts["weights"]
    assert dropped.facts["remade"][0]["instead"] == alone.facts["instead"]
    assert open_chain(project).steps[0].instead == alone.facts["instead"]


def test_joint_gives_up_a_place_that_a_request_named(method: str, model: Model, tmp_path: Path) -> None:
    project = started(tmp_path / "p", model, method, "joint")
    chain.add(project, "cat", instead="dog", model=model)
    assert chain.add(project, "dog", model=model).facts["instead"].keys() == {"cat", "dog"}
    assert chain.status(project).displaced == {}


def test_nothing_is_a_place_that_no_request_erases(method: str, model: Model, tmp_path: Path) -> None:
    project = started(tmp_path / "p", model, method)
    assert chain.add(project, "cat", instead="nothing", model=model).facts["instead"] == {}
    assert open_chain(project).steps[0].request.erase[0].instead == ""
    assert chain.add(project, "dog", model=model).facts["instead"].keys() == {"dog"}


def test_a_place_may_be_given_up_for_nothing(model: Model, tmp_path: Path) -> None:
    """Of a method that puts no word in a concept's place."""
    project = started(tmp_path / "p", model, "uce")
    chain.add(project, "cat", instead="dog", model=model)
    assert chain.add(project, "dog", model=model).facts["instead"] == {"cat": ""}
    assert chain.status(project).displaced == {}


def test_merged_avoids_what_is_erased_and_says_what_shows_it(
    method: str, model: Model, tmp_path: Path
) -> None:
    project = started(tmp_path / "p", model, method, "merged")
    place = chain.add(project, "cat", model=model).facts["instead"]["cat"]
    assert chain.add(project, place, model=model).facts["instead"][place] not in ("cat", place)
    assert chain.status(project).displaced == {"cat": place}
    chain.drop(project, 1, model=model)
    chain.add(project, "cat", model=model)
    assert chain.status(project).displaced == {}


def test_a_chain_of_an_older_version_names_no_places(method: str, model: Model, tmp_path: Path) -> None:
    project = started(tmp_path / "p", model, method)
    chain.add(project, "cat", model=model)
    lines = (project / LEDGER).read_text(encoding="utf-8").splitlines()
    facts = json.loads(lines[1])["facts"]
    assert facts.pop("instead")
    entries = open_chain(project).entries
    old = Entry(1, "add", facts, entries[1].previous, entries[1].hash)
    (added,) = changes((entries[0], old))
    assert added.instead == {}


def test_only_places_that_changed_are_told(model: Model, tmp_path: Path) -> None:
    """A joint chain makes every edit again, most of them with the places that they had."""
    project = started(tmp_path / "p", model, "uce", "joint")
    chain.add(project, "cat", instead="car", model=model)
    assert replaced(open_chain(project)) == {}
    assert chain.add(project, "dog", instead="bear", model=model).facts["instead"].keys() == {"cat", "dog"}
    assert replaced(open_chain(project)) == {}
    chain.add(project, "car", model=model)
    assert replaced(open_chain(project)) == {"cat": ("car", "")}
    chain.undo(project, model=model)
    assert replaced(open_chain(project)) == {"cat": ("", "car")}


@pytest.mark.parametrize("method", ["ca", "doco"])
def test_an_anchor_is_given_up_too(method: str, model: Model, tmp_path: Path) -> None:
    """The word that the method itself chooses by the text."""
    project = started(tmp_path / "p", model, method)
    place = chain.add(project, "cat", model=model).facts["instead"]["cat"]
    both = chain.add(project, place, model=model).facts["instead"]
    assert both.keys() == {"cat", place}
    assert not {"cat", place} & set(both.values())
