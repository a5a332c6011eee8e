"""What takes a concept's place, and what a memory bank holds."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from unlearnkit.data.bank import memory_prompts
from unlearnkit.data.prompts import neighbours
from unlearnkit.data.wording import format_prompt
from unlearnkit.errors import InputError
from unlearnkit.methods import plan
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.anchors import anchor, anchored, retained, templates_for
from unlearnkit.training.job import Run
from unlearnkit.training.net import Net

CAT, DOG, GOGH = Concept("cat", phrases=("kitten",)), Concept("dog"), Concept("van gogh", kind="style")


def run(model: Model, request: Request) -> Run:
    return Run(model, request, Net(model))


def knowing(model: Model, **changes: Any) -> Model:
    model.hints = dataclasses.replace(model.hints, **changes)
    return model


def test_an_anchor_is_the_nearest_word_of_the_same_kind_or_what_is_given(model: Model) -> None:
    near = [one.name for one in neighbours(model, Request((CAT,)), 9) if one.kind == "object"]
    assert anchor(model, Request((CAT,)), CAT) == near[0]
    second = Request((CAT, Concept(near[0])))
    assert anchor(model, second, CAT) == near[1]
    assert anchor(model, Request((GOGH,)), GOGH) == "neon"
    given = Concept("cat", instead="a red car")
    assert anchor(model, Request((given,)), given) == "a red car"


def test_a_concept_without_an_anchor_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="no anchor for the style 'van gogh' is in the model's vocabulary"):
        anchor(model, Request((GOGH, Concept("neon", kind="style"))), GOGH)


def test_no_erased_word_takes_a_concepts_place(model: Model) -> None:
    for method, word in itertools.product(("uce", "esd", "ca"), ("dog", "Dog")):
        with pytest.raises(InputError, match=f"'{word}' takes the place of 'cat' and is erased too: give"):
            plan(model, Request((Concept("cat", instead=word), DOG)), method=method)
    plan(model, Request((Concept("cat", instead="nearest"), DOG)), method="uce")


def test_pictures_of_anchors_have_the_concepts_prompts_beside_theirs(model: Model) -> None:
    request = Request((dataclasses.replace(CAT, instead="bear"), dataclasses.replace(GOGH, instead="art")))
    found = anchored(run(model, request), 3)
    asked = ["bear", "bear", "a photo of a bear", "art", "art by art", "art"]
    told = ["cat", "kitten", "a photo of a cat", "van gogh", "art by van gogh", "van gogh"]
    images = found.images
    assert images.latents.shape == (6, *model.shape)
    assert torch.equal(images.cond[images.prompt_index], model.encode(asked))
    assert torch.equal(found.concept_cond, model.encode(told))
    assert (images.cond[images.prompt_index] != found.concept_cond).flatten(1).any(dim=1).all()
    assert retained(run(model, request), found, 3) is images
    kept = retained(run(model, Request(request.erase, keep=(DOG, Concept("tree")))), found, 3)
    assert torch.equal(kept.cond[kept.prompt_index[6:]], model.encode(["dog", "tree", "a photo of a dog"]))
    near = retained(run(model, Request((CAT,))), found, 2, nearest=2)
    names = [one.name for one in neighbours(model, Request((CAT,)), 2)]
    assert torch.equal(near.cond[near.prompt_index[6:]], model.encode(names))


def test_a_grammar_can_take_the_templates_place(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda words: asked.append(list(words)) or encode(words))
    near = dataclasses.replace(GOGH, instead="art")
    anchored(run(model, Request((near,))), 10, grammar="scenes")
    told = asked[-1]
    words = next(words for words in asked if len(words) == 10 and words != told)
    assert len(set(told)) == 10
    assert [one.replace("van gogh", "art") for one in told] == words  # no other style's name, as in RGD


def test_a_concept_can_be_told_by_a_grammar_without_what_is_erased(model: Model) -> None:
    request = Request((CAT,))
    told = [format_prompt(*pair) for pair in templates_for(model, request, GOGH, 12, grammar="plain")]
    assert len(set(told)) == 12 and all("van gogh" in one for one in told)
    assert {word for one in told for word in ("bear", "car", "dog") if word in one} == {"bear", "car", "dog"}
    assert not any(word in one.split() for one in told for word in ("cat", "kitten"))
    own = templates_for(model, request, CAT, 4, grammar="plain")
    assert [word for _, word in own] == ["cat", "kitten", "cat", "kitten"] and all(
        "{}" in form for form, _ in own
    )
    assert [format_prompt(*pair) for pair in templates_for(model, request, GOGH, 2)] == [
        "van gogh",
        "art by van gogh",
    ]


# the memory bank


@pytest.mark.parametrize("budget", [1, 3, 7, 40])
def test_the_memory_keeps_to_its_budget_and_to_what_is_unrelated(budget: int, model: Model) -> None:
    found = memory_prompts(model, Request((CAT,)), (DOG,), budget)
    assert len(found) == budget
    assert found == memory_prompts(model, Request((CAT,)), (DOG,), budget)
    assert not any(word in prompt.split() for prompt in found for word in ("cat", "kitten", "dog"))
    # bear, car, van gogh, neon: all of them before a second prompt of one, and no prompt twice while there are others
    assert len({prompt.split()[-1] for prompt in found[:4]}) == min(budget, 4)
    assert len(set(found)) == min(budget, 6)
    if budget > 3:  # and not all of them in the first template
        assert {prompt.startswith("a photo of") for prompt in found[:4] if "art" not in prompt} == {
            True,
            False,
        }


def test_the_memory_leaves_out_every_prompt_with_an_erased_word_in_it(model: Model) -> None:
    knowing(model, objects=("hot dog", "car", "dogma"), styles=("Dog art",))
    assert set(memory_prompts(model, Request((DOG,)), (), 9)) == {
        *("a photo of a car", "car in a picture", "a photo of a dogma", "dogma in a picture")
    }


def test_a_memory_without_words_is_refused(model: Model) -> None:
    knowing(model, objects=("cat", "dog"), styles=())
    with pytest.raises(InputError, match="leaves no word for the memory: choose memory=0"):
        memory_prompts(model, Request((CAT,)), (DOG,), 5)


def test_every_wording_meets_every_template_of_a_grammar(model: Model) -> None:
    concept = Concept("cat", phrases=("kitten", "kitty"))
    pairs = templates_for(model, Request((concept,)), concept, 27, "scenes")
    kinds_ = ["photo" if form.startswith("a photo of") else " of a" in form for form, _ in pairs]
    assert len({(kind, word) for kind, (_, word) in zip(kinds_, pairs, strict=True)}) == 3 * 3
