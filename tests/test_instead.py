"""What takes an erased concept's place: a word, nothing, or the nearest retained word."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import quick
from torch import Tensor

import kinds
from unlearnkit import seeds
from unlearnkit.chain.screening import screen
from unlearnkit.data import nearest
from unlearnkit.data.nearest import nearest_word, with_nearest
from unlearnkit.errors import InputError, ModelError
from unlearnkit.methods import METHODS, edit_for, plan, resolve, unretained
from unlearnkit.methods.checking import check_lengths
from unlearnkit.model.edit import Edit
from unlearnkit.model.hints import Hints, parse
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import sample_latents
from unlearnkit.schema import Concept, Request

CAT = Concept("cat", instead="nearest")
CAT_ALONE = Request((Concept("cat"),))


def test_nothing_and_nearest_in_any_spelling() -> None:
    assert Concept("cat", instead="Nothing").instead == ""
    assert Concept("cat", instead="NEAREST ").instead == "nearest"
    assert Concept("cat", instead="a Dog").instead == "a Dog"


def test_the_order_of_the_words_does_not_matter(model: Model) -> None:
    keep = (Concept("car"), Concept("tree"), Concept("bear"))
    found = {nearest_word(model, Request((CAT,), words), CAT) for words in (keep, keep[::-1])}
    assert len(found) == 1
    assert found <= {"car", "tree", "bear"}


def test_nearest_is_a_retained_word_of_the_kind(model: Model) -> None:
    assert nearest_word(model, Request((CAT,)), CAT) in ("dog", "bear", "car")
    assert nearest_word(model, Request((CAT, Concept("dog"), Concept("bear"))), CAT) == "car"
    style = Concept("neon", "style", instead="nearest")
    assert nearest_word(model, Request((style,)), style) == "van gogh"
    alone = Request((style, Concept("van gogh", "style")))
    with pytest.raises(InputError, match="no other style is known"):
        with_nearest(model, alone, {})


@pytest.mark.parametrize("batch", [1, 6, 32])
def test_the_nearest_word_is_predicted_most_like_the_concept(model: Model, batch: int) -> None:
    """By an independent route: one picture, word and time after the other, whatever a batch holds."""
    model.batch = batch
    request, hints = Request((CAT,)), model.hints
    forms = ["{}", *hints.templates["object"]][:3]
    words, prompts = [one for one in hints.objects if one != "cat"], [form.format("cat") for form in forms]
    numbers = [seeds.derive(0, "nearest", prompt) for prompt in prompts]
    x = sample_latents(model, prompts, numbers, steps=hints.steps, guidance=hints.guidance)
    noise, distances = torch.randn(x.shape, generator=seeds.stream(0, "nearest")), dict.fromkeys(words, 0.0)
    for word, share, (i, form) in itertools.product(words, (0.35, 0.55, 0.75), enumerate(forms)):
        t = torch.tensor([int(share * model.num_timesteps)])
        noisy = model.add_noise(x[i : i + 1], noise[i : i + 1], t)
        with torch.no_grad():
            own, other = (model.eps(noisy, t, model.encode([form.format(one)])) for one in ("cat", word))
        distances[word] += float((own - other).square().sum())
    near, *others = sorted(distances, key=distances.__getitem__)
    assert distances[near] < 0.999 * distances[others[0]], "the toy tells its words apart"
    assert nearest_word(model, request, CAT) == near


def test_a_synonym_takes_no_place() -> None:
    """The canvas draws the same for "kitten" as for "cat"."""
    canvas, kept = load("canvas"), tuple(map(Concept, ("kitten", "dog", "bear")))
    assert nearest_word(canvas, Request((CAT,), kept), CAT) == "dog"
    assert nearest_word(canvas, Request((CAT,), kept[:1]), CAT) == "kitten"  # nothing else is left


def test_the_distances_are_measured_once_for_all_requests(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path))
    measured, asked = nearest._measured, list[list[str]]()

    def recorded(model: Model, prompts: list[str], numbers: list[int], others: list[str]) -> Tensor:
        asked.append([one for one in others if " " not in one])
        return measured(model, prompts, numbers, others)

    monkeypatch.setattr(nearest, "_measured", recorded)
    later = screen(model, [Request((Concept("dog"),))])  # as a chain sees the model after a request
    assert nearest_word(later, Request((CAT,)), CAT) in ("bear", "car")
    near = nearest_word(model, Request((CAT,)), CAT)
    assert nearest_word(model, Request((CAT,)), CAT) == near
    assert nearest_word(model, Request((CAT, Concept(near))), CAT) not in ("cat", near)
    assert asked == [["bear", "car"], ["dog"]]
    with model.wearing(Edit({k: v + 1 for k, v in model.weights("text").items()}, {})):
        nearest_word(model, Request((CAT,)), CAT)  # of another model
    assert len(asked[2]) == 3


def test_nearest_is_no_name_that_a_model_with_classes_must_know(tmp_path: Path) -> None:
    model = Model(kinds.pipeline("class-conditional DiT", tmp_path), hints=Hints(size=16))
    assert model.classes
    check_lengths(model, Request((Concept(model.classes[0], instead="nearest"),)))
    with pytest.raises(InputError, match="unknown"):
        check_lengths(model, Request((Concept(model.classes[0], instead="no class"),)))


def test_of_many_the_text_decides(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an independent route: one cosine after the other, of the words' own states."""
    request = Request(
        (CAT, Concept("dog", instead="nearest"), Concept("neon", "style", instead="nearest")),
        keep=(Concept("bear"), Concept("car"), Concept("van gogh", "style")),
    )
    monkeypatch.setattr("unlearnkit.data.nearest.FEW", 2)
    monkeypatch.setattr("unlearnkit.data.nearest.nearest_word", None)  # the model is not asked
    found = [one.instead for one in with_nearest(model, request, {}).erase]

    def state(word: str) -> torch.Tensor:
        return model.text([word])[0, model.last_token(word)].double()

    expected = [
        max(("bear", "car"), key=lambda word: torch.cosine_similarity(state(name), state(word), dim=0).item())
        for name in ("cat", "dog")
    ]
    assert found == [*expected, "van gogh"]


@pytest.mark.parametrize("method", ["esd", "duge", "ca", "doco", "rgd", "uce"])
@pytest.mark.parametrize("instead", ["nothing", "nearest"])
def test_every_choice_makes_an_edit(model: Model, method: str, instead: str) -> None:
    request, settings = Request((Concept("cat", instead=instead),)), quick(method, 2)
    settings |= {"neighbours": 1} if method == "duge" else {}
    told: Any = plan(model, request, method=method, settings=settings)
    assert told.weights
    edit = edit_for(model, request, method=method, settings=settings)
    if instead == "nearest":
        word = edit.facts["instead"]["cat"]
        assert word == nearest_word(model, request, request.erase[0])
        given = Request((Concept("cat", instead=word),))
        assert edit.hash() == edit_for(model, given, method=method, settings=settings).hash()
    else:
        assert "instead" not in edit.facts


def test_a_superclass_cannot_be_nothing(model: Model) -> None:
    request = Request((Concept("cat", instead="nothing"),))
    with pytest.raises(InputError, match="a superclass is a word"):
        edit_for(model, request, method="sculpting", settings=quick("sculpting", 2))


def test_esd_leaves_the_word_out_of_its_sentence(model: Model) -> None:
    """Nothing is the rest of the sentence, also where the method's own default is the empty prompt."""
    settings = quick("esd", 2, start="pictures", templates=True, pictures=3)
    own = edit_for(model, Request((Concept("cat"),)), method="esd", settings=settings | {"null": "rest"})
    request = Request((Concept("cat", instead="nothing"),))
    assert edit_for(model, request, method="esd", settings=settings).hash() == own.hash()


def test_a_model_has_a_default_for_a_method(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hints' ``instead`` is used where the request names nothing, and passed over where no word is left."""
    own = edit_for(model, Request((Concept("cat"),)), method="esd", settings=quick("esd", 2))
    hints = replace(model.hints, methods={"esd": {"object": {"instead": "nearest"}}})
    monkeypatch.setattr(model, "hints", hints)
    told = edit_for(model, Request((Concept("cat"),)), method="esd", settings=quick("esd", 2))
    explicit = edit_for(model, Request((CAT,)), method="esd", settings=quick("esd", 2))
    assert told.hash() == explicit.hash() != own.hash()
    assert told.facts["identity"] != own.facts["identity"]
    assert told.facts["instead"] == explicit.facts["instead"]
    everything = Request(tuple(map(Concept, model.hints.objects)))
    assert with_nearest(model, everything, {"object": "nearest"}) == everything
    style = Request((Concept("neon", "style"),))
    assert with_nearest(model, style, {"object": "nearest"}) == style


def test_hints_for_what_appears_instead() -> None:
    assert parse('[methods.esd.object]\ninstead = "nearest"\nlr = 1e-4').instead("esd") == {
        "object": "nearest"
    }
    assert "instead" not in parse('[methods.esd.object]\ninstead = "nearest"').settings("esd", "object")
    for bad in ("3", "''", "true"):
        with pytest.raises(ModelError, match="'instead' is a word"):
            parse(f"[methods.esd.object]\ninstead = {bad}")


@pytest.mark.parametrize("method", METHODS)
def test_a_word_in_its_place_changes_the_edit_or_is_refused(method: str, model: Model) -> None:
    def made(place: str | None) -> str:
        request = Request((Concept("cat", instead=place),), (Concept("car"),))
        return edit_for(model, request, method=method, settings=quick(method, 2)).hash()

    if METHODS[method].REPLACES:
        assert made(None if method in ("uce", "uce-diverse") else "dog") != made("bear")
    else:
        for place in ("dog", "", "nearest"):
            with pytest.raises(InputError, match=f"{method} puts nothing in the place of 'cat'"):
                made(place)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_changes_the_edit_or_the_dry_run_says_that_it_does_not(
    method: str, model: Model
) -> None:
    def made(*keep: str) -> str:
        request = Request((Concept("cat"),), tuple(map(Concept, keep)))
        return edit_for(model, request, method=method, settings=quick(method, 2)).hash()

    filled, kept = (
        resolve(model, CAT_ALONE, method, quick(method, 2)),
        Request(CAT_ALONE.erase, (Concept("dog"),)),
    )
    assert unretained(model, filled, CAT_ALONE) == ""
    assert (made("dog") == made("bear", "car")) == bool(unretained(model, filled, kept))
