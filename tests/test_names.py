"""A name is the same name however it is spelled: blanks, case and composed letters do not count."""

from __future__ import annotations

from typing import Any

import pytest

from unlearnkit import chain
from unlearnkit.data.prompts import neighbours, unerased
from unlearnkit.data.wording import contains_word
from unlearnkit.errors import InputError, ModelError
from unlearnkit.methods import edit_for
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.runs.images import neighbours as shown
from unlearnkit.runs.requests import request_for
from unlearnkit.runs.run import erase
from unlearnkit.schema import LONGEST, Concept, Request, folded

SPELLINGS = [
    ("cat", " cat "),
    ("van gogh", "van  gogh"),
    ("van gogh", "van\u00a0gogh"),
    ("café", "cafe\u0301"),
]


@pytest.mark.parametrize(("plain", "spelling"), SPELLINGS)
def test_a_concept_is_the_same_however_its_name_is_spelled(plain: str, spelling: str):
    made = Concept(spelling, phrases=(spelling, f" {spelling.upper()}"), instead=" a  dog ")
    assert made.name == plain, "prompts say it as it was typed, less what nobody sees"
    assert made.wordings == (plain,)
    assert made.instead == "a dog"
    with pytest.raises(InputError, match="replaced by itself"):
        Concept(plain, instead=spelling.upper())
    with pytest.raises(InputError, match="both erased and kept"):
        Request((Concept(plain),), (Concept("dog", phrases=(spelling,)),))


@pytest.mark.parametrize("name", ["cat ", "CAT", " van  gogh"])
def test_no_spelling_of_what_is_erased_is_among_what_is_kept(model: Model, name: str):
    kind = "style" if "gogh" in name else "object"
    request = request_for(name, kind=kind)
    kept = {folded(one.name) for one in (*neighbours(model, request, 9), *shown(model, request))}
    words = {folded(word) for word in unerased(model, request)[kind]}
    assert folded(name) not in kept | words | {""}
    assert request_for(name, kind="object", known=model.hints, keep=["NEON "]).keep[0].kind == "style"
    assert contains_word("A  Van GOGH picture of a cat", [name])


def test_a_concept_that_comes_twice_counts_once(model: Model):
    once = edit_for(model, request_for("cat"), method="uce").hash()
    assert edit_for(model, request_for(["cat", " Cat", "cat"], keep=()), method="uce").hash() == once
    assert erase(model, "cat ", method="uce").hash() == once
    assert request_for("cat", keep=["dog", "DOG ", "bear"]).keep == (Concept("dog"), Concept("bear"))
    one = Concept("cat", phrases=("kitten", " Kitten"))
    assert Request((one, Concept("cat", phrases=("KITTEN",)))).erase == (one,)
    assert Request((Concept("neon"), Concept("neon", "style"))).erase[1].kind == "style"


@pytest.mark.parametrize("wrong", [None, 3, ["cat", 3], [None]])
def test_what_is_no_name_is_refused_in_one_line(wrong: Any, model: Model):
    with pytest.raises(InputError, match="is no concept: give a name"):
        erase(model, wrong)
    with pytest.raises(InputError, match="is no concept: give a name"):
        request_for("cat", keep=wrong)
    assert request_for("cat", phrases="kitten") == Request((Concept("cat", phrases=("kitten",)),))


def test_what_is_no_model_is_refused_in_one_line():
    with pytest.raises(ModelError, match="model None is no name"):
        load(None)  # type: ignore[arg-type]


def test_the_kind_is_what_the_hints_say(model: Model):
    kinds = {one.name: one.kind for one in request_for(["Neon", "cat", "zebu"], known=model.hints).erase}
    assert kinds == {"Neon": "style", "cat": "object", "zebu": "object"}
    assert request_for("Van Gogh").erase[0].kind == "style", "the general hints know it"
    assert request_for("neon", kind="object", known=model.hints).erase[0].kind == "object"
    assert request_for("neon", known=model.hints, keep=["cat"]).keep[0].kind == "object"
    with pytest.raises(InputError, match="use one of object, style"):
        request_for("cat", kind="")


@pytest.mark.parametrize("other", [Concept("kitten"), Concept("dog", phrases=(" KITTEN",)), Concept("cat")])
def test_a_wording_of_two_different_concepts_is_refused(other: Concept):
    with pytest.raises(InputError, match="is erased twice, as two different concepts"):
        Request((Concept("cat", phrases=("kitten",)), other))


@pytest.mark.parametrize(
    "bad", ["cat\n", "a\tcat", "\x1b[31mcat", "c\u200bat", "\u202ecat", "cat\udcff", "a" * 501]
)
@pytest.mark.parametrize("where", ["name", "phrase", "instead"])
def test_a_name_that_nobody_can_read_is_refused_in_one_line(bad: str, where: str):
    with pytest.raises(InputError, match="the name '") as caught:
        Concept(
            bad if where == "name" else "dog",
            phrases=(bad,) if where == "phrase" else (),
            instead=bad if where == "instead" else None,
        )
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_names_of_every_script_are_names():
    assert LONGEST == 500
    for name in ("猫", "İstanbul", "کتاب‌ها", "👩‍🎨", "naïve art", "a" * LONGEST):
        assert Concept(name).name == name


def test_a_chain_knows_a_name_however_it_is_spelled(model: Model, tmp_path):
    chain.init(tmp_path / "chain", model, method="uce", pictures=0)
    chain.add(tmp_path / "chain", "cat", model=model)
    with pytest.raises(InputError, match="is erased already, by request 1"):
        chain.add(tmp_path / "chain", " CAT", model=model)
    with pytest.raises(InputError, match="cannot be kept"):
        chain.add(tmp_path / "chain", "dog", keep=[" Cat"], model=model)
    with pytest.raises(InputError, match="was erased by request 1"):
        chain.add(tmp_path / "chain", "dog", instead="cat ", model=model)
