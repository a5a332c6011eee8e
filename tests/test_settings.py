"""Settings: what is declared is what is checked, and a recipe survives being written and read."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import settings as tests
from hypothesis import strategies as st

from unlearnkit.errors import InputError
from unlearnkit.methods import METHODS
from unlearnkit.runs.recipes import dump_recipe, load_recipe
from unlearnkit.schema import HIDDEN, Concept, Recipe, Request
from unlearnkit.settings import build, describe, parse_pairs, setting


@dataclass(frozen=True)
class Example:
    steps: int = setting(200, "optimiser\n   steps", low=1, high=1000, source="the paper")
    lr: float = setting(1e-5, "learning rate", low=1e-9, high=1)
    part: Literal["xattn", "all"] = setting("xattn", "weights that are trained")
    fast: bool = setting(False, "whether to hurry")
    words: tuple[str, ...] = setting(("a", "b"), "some words", min_items=1)
    levels: tuple[float, ...] = setting((), "some levels", low=0)
    limit: float | None = setting(None, "a limit", low=0)
    free: int = setting(0, "a number without bounds of its own")
    note: str = setting("", "a note")
    solver: str = setting("sgd", "a solver", choices=("sgd", "adam"))


def test_describe_tells_what_a_user_asks():
    steps, _, part, *_, limit, _, _, solver = describe(Example)
    assert (steps.name, steps.default, steps.range, steps.source) == ("steps", 200, "1 to 1000", "the paper")
    assert (steps.doc, steps.type) == ("optimiser steps", "a whole number")
    assert (part.range, solver.range) == ("xattn or all", "sgd or adam")
    assert (limit.type, limit.range) == ("a number, or none", "at least 0")


def test_pairs_take_the_types_of_the_fields():
    pairs = [
        "steps=20",
        "lr=1e-4",
        "part=all",
        "fast=true",
        "words=x,y",
        "levels=1,.5",
        "limit=none",
        "note=a=b",
    ]
    assert parse_pairs(pairs, Example) == {
        "steps": 20,
        "lr": 1e-4,
        "part": "all",
        "fast": True,
        "words": ("x", "y"),
        "levels": (1.0, 0.5),
        "limit": None,
        "note": "a=b",
    }


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("stepz=2", "did you mean 'steps'"),
        ("steps", "KEY=VALUE"),
        ("=2", "KEY=VALUE"),
        ("steps=2.5", "a whole number, 1 to 1000"),
        ("steps=0", "got 0"),
        ("steps=1001", "1 to 1000"),
        ("lr=nan", "a finite number"),
        ("lr=inf", "a finite number"),
        ("lr=two", "'two'"),
        ("part=xatn", "did you mean 'xattn'"),
        ("fast=perhaps", "true or false"),
        ("words=", "at least 1 item"),
        ("levels=1,-1", "at least 0"),
        ("limit=-1", "or none, at least 0"),
        ("solver=adma", "did you mean 'adam'"),
        ("solver=ADAM", "did you mean 'adam'"),
        (f"steps={'9' * 5000}", "…: it takes a whole number, 1 to 1000"),
        (f"lr={'9' * 5000}", "it takes a finite number, 1e-09 to 1"),
        ("lr=1e400", "it takes a finite number, 1e-09 to 1"),
        ("limit=1e13", "it takes at most 1,000,000,000,000"),
        (f"free={2**63}", "it takes at most 1,000,000"),
        (f"free=-{2**63}", "it takes at most -1,000,000"),
        (f"levels={'1,' * 5000}1", "got 5001 items: it takes at most 1000"),
        (f"note={'a' * 5000}", "at most 4096 characters fit"),
        (f"{'a' * 5000}=1", "… is unknown"),
        ("a" * 5000, "KEY=VALUE"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_not_allowed_is_refused_in_one_line(pair: str, says: str):
    with pytest.raises(InputError) as caught:
        parse_pairs([pair], Example)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_setting_given_twice_is_refused():
    with pytest.raises(InputError, match="twice"):
        parse_pairs(["steps=2", "steps=3"], Example)


@pytest.mark.parametrize(
    "values",
    [
        *({"steps": True}, {"steps": 2.0}, {"fast": 1}, {"words": "ab"}, {"note": 3}),
        *({"steps": 10**5000}, {"lr": 10**5000}, {"levels": [10**5000]}, {"note": [[]]}, {"words": [["a"]]}),
    ],
    ids=range(10),
)
def test_python_values_are_checked_as_well(values: dict[str, object]):
    with pytest.raises(InputError, match=next(iter(values))):
        build(Example, values)


def test_whole_numbers_serve_as_numbers_and_lists_as_tuples():
    made = build(Example, {"lr": 1, "words": ["x"], "limit": "none"})
    assert (made.lr, made.words, made.limit) == (1.0, ("x",), None)
    assert type(made.lr) is float


def test_one_choice_serves_as_a_list_of_it():
    esd = METHODS["esd"]
    assert build(esd, {"rule": "l2sp"}) == build(esd, {"rule": ["l2sp"]}) == esd(rule=("l2sp",))
    assert build(esd, {"rule": "none"}).rule == ()
    with pytest.raises(
        InputError, match=r"got 'l3sp' \(did you mean 'l2sp'\?\): it takes l1sp, l2sp or project"
    ):
        build(esd, {"rule": "l3sp"})
    with pytest.raises(InputError, match="words"):
        build(Example, {"words": "x"})


text = st.text(st.characters(exclude_categories=["Cs"]))
name = st.text(st.characters(exclude_categories=HIDDEN), max_size=30).filter(str.strip)
number = st.floats(allow_nan=False, allow_infinity=False)
scalar = st.booleans() | st.integers(1 - 2**63, 2**63 - 1) | number | text
kinds = st.sampled_from(["object", "style"])


def apart(concepts: tuple[Concept, ...]) -> bool:
    """Whether no wording is in two of them."""
    words = [word for concept in concepts for word in concept.folded]
    return len(words) == len(set(words))


concepts = st.builds(Concept, name, kinds, st.lists(name, max_size=3).map(tuple))
recipes = st.builds(
    Recipe,
    model=text.map(lambda name: f"nowhere/{name}"),
    method=text,
    request=st.builds(Request, st.lists(concepts, min_size=1, max_size=3).map(tuple).filter(apart)),
    settings=st.dictionaries(text, scalar | st.lists(scalar, max_size=3).map(tuple), max_size=4),
    seed=st.integers(0, 2**63 - 1),
)


@tests(deadline=None)
@given(recipes)
def test_a_recipe_is_read_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe):
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


@tests(deadline=None)
@given(
    st.builds(
        Example,
        steps=st.integers(1, 1000),
        lr=st.floats(1e-9, 1),
        part=st.sampled_from(["xattn", "all"]),
        fast=st.booleans(),
        words=st.lists(text, min_size=1).map(tuple),
        levels=st.lists(st.floats(0, 1e12)).map(tuple),
        limit=st.none() | st.floats(0, 1e12),
        note=text,
    )
)
def test_settings_survive_toml(made: Example):
    recipe = Recipe("canvas", "esd", Request((Concept("cat", instead="dog"),), (Concept("bear"),)))
    data = tomllib.loads(dump_recipe(recipe, made))
    assert build(Example, data["settings"]) == made
    assert set(data["settings"]) == set(asdict(made)), "every default is spelled out"


RECIPE = 'model = "canvas"\nmethod = "esd"\n'


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("model = ", "not TOML"),
        (RECIPE, "lacks 'erase'"),
        (RECIPE + "erase = 3", "a list of tables"),
        (RECIPE + "erase = []", "erases nothing"),
        (RECIPE + "erase = [3]", "a table is expected"),
        (RECIPE + "[[erase]]\nkind = 'style'", "lacks 'name'"),
        (RECIPE + "[[erase]]\nname = ''", "empty"),
        (RECIPE + "[[erase]]\nname = 'cat'\nphrase = ['kitten']", "did you mean 'phrases'"),
        (RECIPE + "[[erase]]\nname = 'cat'\nphrases = 'kitten'", "a list, each text"),
        (RECIPE + "sead = 3\n[[erase]]\nname = 'cat'", "did you mean 'seed'"),
        (RECIPE + "seed = true\n[[erase]]\nname = 'cat'", "a whole number"),
        (RECIPE + "seed = -1\n[[erase]]\nname = 'cat'", "out of range"),
        (RECIPE + "seed = 0x" + "f" * 5000 + "\n[[erase]]\nname = 'cat'", "over 63 bits"),
        (RECIPE + "seed = 1979-05-27\n[[erase]]\nname = 'cat'", "a whole number"),
        (RECIPE + "x = " + "[" * 1000 + "]" * 1000, "not TOML"),
        (RECIPE + "x = " + "[" * 100 + "]" * 100, "64 levels"),
        (RECIPE + "[[erase]]\nname = '" + "a" * 5000 + "'", "name a concept in 500 at most"),
        (RECIPE + "'" + "a" * 5000 + "' = 1", "unknown key"),
        (RECIPE + "erase = [[" + "1," * 5000 + "]]", "a table is expected"),
        (RECIPE + "[[erase]]\nname = [" + "1," * 5000 + "]", "it takes text"),
        (RECIPE + "\0", "not TOML"),
    ],
    ids=lambda value: value[-30:],
)
def test_a_bad_recipe_says_what_is_wrong_with_it(tmp_path: Path, toml: str, says: str):
    (tmp_path / "recipe.toml").write_text(toml)
    with pytest.raises(InputError) as caught:
        load_recipe(tmp_path / "recipe.toml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path: Path):
    text = RECIPE + "[[erase]]\nname = 'cat'"
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8-sig")
    assert load_recipe(tmp_path / "recipe.toml").request == Request((Concept("cat"),))


@pytest.mark.parametrize("method", METHODS)
def test_every_number_of_every_method_has_a_bound(method: str):
    for one in describe(METHODS[method]):
        for most in (2**63, -(2**63), 10**400):
            pair = f"{one.name}={most}"
            if type(one.default) in (int, float):
                with pytest.raises(InputError, match="it takes"):
                    parse_pairs([pair], METHODS[method])


def test_a_recipe_that_is_not_there_or_not_text(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8 text"):
        load_recipe(tmp_path / "picture.toml")


def test_text_that_is_no_unicode_is_refused():
    with pytest.raises(InputError, match="Unicode"):
        dump_recipe(Recipe("canvas", "esd", Request((Concept("\udcff"),))))
