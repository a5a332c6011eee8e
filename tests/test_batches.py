"""Many prompts encoded in batches: the same states as one by one, up to the order of sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_families import TITLES, opened

import kinds
from unlearnkit.data.prompts import neighbours
from unlearnkit.data.text_columns import concept_texts, last_columns, retained_columns
from unlearnkit.errors import InputError
from unlearnkit.methods import checking, edit_for
from unlearnkit.model import batches
from unlearnkit.model.batches import last_states, text_batches
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request

NAMES = ["cat", "a photo of a dog", "", "art by van gogh", "bear in a picture", "car", "a photo of a dog"]
LOOSE = {"rtol": 1e-6, "atol": 1e-6}
REQUEST = Request(
    (Concept("cat"), Concept("van gogh", "style")), keep=(Concept("dog"), Concept("neon", "style"))
)


@pytest.mark.parametrize("title", TITLES)
def test_states_from_batches_are_those_of_single_prompts(
    title: str, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(title, words)
    names = ["cat", "dog", "cat"] if model.classes else NAMES
    monkeypatch.setattr(batches, "TEXTS", 2)
    seen = []
    for part, states in text_batches(model, names):
        torch.testing.assert_close(states, model.text([names[place] for place in part]), **LOOSE)
        seen += part
    assert sorted(seen) == list(range(len(names)))
    places = [model.last_token(name) for name in names]
    single = torch.stack([model.text([name])[0, place] for name, place in zip(names, places, strict=True)])
    ticks: list[tuple[int, int]] = []
    found = last_states(model, names, places, tick=lambda *told: ticks.append(told))
    assert found.dtype == torch.float64 and ticks[-1] == (len(names), len(names))
    torch.testing.assert_close(found.float(), single, **LOOSE)
    assert torch.equal(last_states(model, names, places), found)  # the same list, the same bits


def test_a_causal_encoder_gets_no_more_padding_than_it_needs(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    encode = model.family.encode_many  # type: ignore[attr-defined]

    def watched(*given: object, **more: object) -> torch.Tensor:
        lengths.append((states := encode(*given, **more)).shape[1])
        return states

    monkeypatch.setattr(model.family, "encode_many", watched)
    before = model.pipe.tokenizer.model_max_length
    monkeypatch.setattr(batches, "TEXTS", 1)
    last_states(
        model, ["cat", "a photo of a dog"], [model.last_token("cat"), model.last_token("a photo of a dog")]
    )
    list(text_batches(model, ["cat"]))
    assert sorted(lengths) == [3, 7, before]  # start, words, end
    assert model.pipe.tokenizer.model_max_length == before


def test_what_is_retained_does_not_contain_what_is_erased(make: Callable[..., Model]) -> None:
    dog = Concept("dog")
    kept = concept_texts(make(), [dog], templates=True, without=["picture"])
    assert kept == [(dog, "{}", "dog"), (dog, "a photo of a {}", "dog")]


def test_columns_in_the_middle_of_a_prompt(model: Model) -> None:
    several = [("{}", "cat"), ("{} in a picture", "bear"), ("a photo of a {}", "dog"), ("{}", "cat")]
    single = [retained_columns(model, form, word, last=True) for form, word in several]
    torch.testing.assert_close(last_columns(model, several), torch.cat(single, dim=1), **LOOSE)


@pytest.mark.parametrize(("method", "tokens"), [("uce", "last"), ("uce", "all"), ("speed", "last")])
def test_closed_forms_of_many_concepts_are_those_of_few(
    make: Callable[..., Model], method: str, tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"templates": True, "tokens": tokens}
    single = edit_for(make(), REQUEST, method=method, settings=settings)
    for place in ("model.batches", "data.prompts"):
        monkeypatch.setattr(f"unlearnkit.{place}.MANY", 0)
    for size in ("BLOCK", "WHOLE"):
        monkeypatch.setattr(f"unlearnkit.data.text_columns.{size}", 3)
    many = edit_for(make(), REQUEST, method=method, settings=settings)
    assert single.weights.keys() == many.weights.keys()
    for name, weight in single.weights.items():
        torch.testing.assert_close(many.weights[name], weight, rtol=1e-5, atol=1e-6)
    assert edit_for(make(), REQUEST, method=method, settings=settings).hash() == many.hash()


def test_neighbours_of_many_words_are_those_of_few(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request((Concept("cat"), Concept("dog")))
    few = neighbours(model, request, 3)
    monkeypatch.setattr("unlearnkit.data.prompts.MANY", 0)
    assert neighbours(model, request, 3) == few


def test_names_that_are_one_to_the_model_are_found_among_many(
    words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MANY", 0)
    model = Model(kinds.pipeline("PixArt-Sigma", words), source="tiny")  # its toy words know no Chinese
    checking.check_names(model, Request((Concept("cat"), Concept("dog")), (Concept("bear"),)))
    with pytest.raises(InputError, match="are one and the same to tiny"):
        checking.check_names(model, Request((Concept("猫"), Concept("cat"), Concept("犬"))))
    with pytest.raises(InputError, match="are one and the same to tiny"):
        checking.check_names(model, Request((Concept("猫", instead="犬"),)))


def test_of_many_concepts_a_sample_is_predicted(
    make: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    names = ("cat", "dog", "bear", "car", "van gogh", "neon")
    request = Request(tuple(map(Concept, names)))
    name, weight = next(iter(model.weights("text").items()))
    edit = edit_for(model, Request((Concept("cat"),)), method="uce")
    edit = replace(edit, weights={name: weight + 0.1})
    monkeypatch.setattr(checking, "SOME", 2)
    asked: list[str] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda prompts: (asked.extend(prompts), encode(prompts))[1])
    checking.check_moved(model, request, edit)
    assert set(asked) == {"cat", "dog", "car", "van gogh"}  # 0, 1.5, 3 and 4.5 of six


def test_small_latents_show_whether_a_unet_moved_and_large_ones_whether_it_did_not(
    make: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, request = make(), Request((Concept("cat"),))
    name, weight = next(iter(model.weights("text").items()))
    moves, stays = Edit({name: weight.detach() + 0.1}), Edit({name: weight.detach().clone()})
    monkeypatch.setattr(checking, "SMALL", model.shape[1] // 2)
    sizes: list[int] = []
    predict = model.predict
    monkeypatch.setattr(
        model, "predict", lambda x, t, cond: (sizes.append(x.shape[2]), predict(x, t, cond))[1]
    )
    checking.check_moved(model, request, moves)
    assert sizes == [checking.SMALL] * 2
    with pytest.raises(InputError, match="moves nothing that tiny predicts for 'cat'"):
        checking.check_moved(model, request, stays)
    assert sizes[2:] == [checking.SMALL] * 2 + [model.shape[1]] * 2
