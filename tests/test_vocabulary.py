"""The suite of a model's own words: one panel, whatever is erased, and every prompt in its right place."""

from __future__ import annotations

from collections import Counter

import pytest

import saved
from unlearnkit import suites
from unlearnkit.errors import InputError
from unlearnkit.model.hints import Hints
from unlearnkit.schema import Concept, Request
from unlearnkit.suites.vocabulary import panel

WORLD = Hints(
    objects=("cat", "dog", "car"),
    styles=("neon", "van gogh"),
    templates={"object": ("a {}", "a neon picture of a {}"), "style": ("{} art", "a dog in {} style")},
)


def test_what_a_prompt_shows_is_what_words_stand_in_it() -> None:
    cases = {case.prompt: case for case in panel(Request((Concept("cat"),)), WORLD, 2)}
    assert len(cases) == 10
    assert (cases["a neon picture of a cat"].object, cases["a neon picture of a cat"].style) == (
        "cat",
        "neon",
    )
    assert (cases["a dog in van gogh style"].object, cases["a dog in van gogh style"].style) == (
        "dog",
        "van gogh",
    )
    roles = {prompt: case.role for prompt, case in cases.items()}
    assert roles["a cat"] == roles["a neon picture of a cat"] == "erased"
    assert roles["a dog"] == roles["a dog in van gogh style"] == "near"  # an animal, too
    assert roles["a car"] == roles["neon art"] == "unrelated"


def test_the_panel_is_the_same_whatever_is_erased() -> None:
    one = panel(Request((Concept("cat"),)), WORLD, 2)
    two = panel(Request((Concept("neon", "style"), Concept("cat"))), WORLD, 2)
    assert [(case.id, case.prompt, case.seed) for case in one] == [
        (case.id, case.prompt, case.seed) for case in two
    ]
    concepts = {case.prompt: case.concept for case in two}
    assert concepts["a neon picture of a cat"] == "neon"
    assert concepts["a cat"] == "cat"


def test_words_that_the_vocabulary_lacks_are_asked_for_too() -> None:
    cases = panel(Request((Concept("kitten", phrases=("puss",)),)), WORLD, 2)
    erased = [case for case in cases if case.role == "erased"]
    assert Counter(case.concept for case in erased) == {"kitten": 4}
    assert {case.object for case in erased} == {"kitten"}


def test_more_pictures_than_templates_are_replicates() -> None:
    cases = panel(Request((Concept("cat"),)), WORLD, 6)
    assert Counter(case.prompt for case in cases)["a cat"] == 3
    assert len({case.seed for case in cases}) == len(cases) == len({case.id for case in cases})


def test_the_file_is_a_models_own() -> None:
    file = saved.folder() / "unlearnkit.toml"
    cases, left_out = suites.cases("vocabulary", Request((Concept("cat"),)), file=file)
    assert not left_out
    assert {case.object for case in cases} > {"cat", "dog", "bear", "car", "tree"}
    with pytest.raises(InputError, match="takes the prompts of a CSV file"):
        suites.cases("vocabulary", Request((Concept("cat"),)))
    with pytest.raises(InputError, match="cannot be read"):
        suites.cases("vocabulary", Request((Concept("cat"),)), file="nowhere.toml")
