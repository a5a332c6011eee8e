from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny import HINTS
from unlearnkit import seeds
from unlearnkit.data import grammar, pictures
from unlearnkit.data.image_sets import ImageSet
from unlearnkit.data.prompts import neighbours, prompts, texts, unerased
from unlearnkit.data.wording import contains_word, format_prompt
from unlearnkit.errors import InputError, ModelError
from unlearnkit.io import tensors
from unlearnkit.methods import edit_for, plan
from unlearnkit.model.hints import FILE, GENERAL, Hints, parse, read
from unlearnkit.model.model import Model
from unlearnkit.schema import HIDDEN, Concept, Request
from unlearnkit.training.job import Job, Run
from unlearnkit.training.net import Net

WORDS = ["a photo of a cat"] * 9 + ["dog"]


def test_pictures_are_those_that_sample_would_give(model: Model, tmp_path: Path) -> None:
    found = pictures.draw(model, WORDS[:3], folder=tmp_path)
    seeds = pictures.image_seeds(WORDS[:3])
    assert found.shape == (3, *model.shape)
    images = model.sample(WORDS[:3], seeds)
    again = model.pipe.image_processor.postprocess(
        model.pipe.vae.decode(found / model.pipe.vae.config.scaling_factor).sample.detach()
    )
    assert [image.tobytes() for image in images] == [image.tobytes() for image in again]
    assert len(set(seeds)) == 3


def test_pictures_may_be_decoded_and_encoded_again(model: Model, tmp_path: Path) -> None:
    """Training sees mean + std * noise of the VAE's distribution of each picture, with new noise each time."""
    job = Job(cache=tmp_path)
    run = Run(model, Request((Concept("cat"),)), Net(model), job=job, reencode=True)
    found = run.image_groups([WORDS[:9], WORDS[9:]])
    pixels = [model.sample(words, pictures.image_seeds(words)) for words in (WORDS[:9], WORDS[9:])]
    made = model.pipe.vae.encode(model.pipe.image_processor.preprocess([*pixels[0], *pixels[1]])).latent_dist
    scale = model.pipe.vae.config.scaling_factor
    torch.testing.assert_close(found.latents, made.mean.detach() * scale)
    which, empty = torch.tensor([9, 2]), found.with_prompt_dropout(0.5)
    for one, at in ((found, which), (empty, which), (empty, which + 10)):
        noise = torch.randn((2, *model.shape), generator=seeds.generator(3))
        expected = scale * (made.mean[which] + (made.logvar[which] / 2).exp() * noise).detach()
        torch.testing.assert_close(one.clean(at, seeds.generator(3)), expected)
    plain = replace(run, reencode=False).images(WORDS)
    both, first = ImageSet.joined([plain, found]), torch.tensor([3])
    assert torch.equal(both.clean(first, seeds.generator(3)), plain.latents[first])
    torch.testing.assert_close(
        both.clean(which + 10, seeds.generator(3)), found.clean(which, seeds.generator(3))
    )
    assert plain.spread is None and torch.equal(plain.clean(which, seeds.generator(3)), plain.latents[which])


@pytest.mark.parametrize("method", ["esd", "ca"])
def test_a_method_may_train_on_encoded_pictures(method: str, model: Model) -> None:
    request = Request((Concept("cat", instead="a dog"),))
    settings: dict[str, Any] = {"steps": 1, "pictures": 2, "batch": 1}
    settings |= {"start": "pictures"} if method == "esd" else {}
    plain, again = (
        edit_for(model, request, method=method, settings=settings | {"reencode": on}) for on in (False, True)
    )
    assert plain.hash() != again.hash()
    told = [plan(model, request, method=method, settings=settings | {"reencode": on}) for on in (False, True)]
    assert told[0] == told[1]


def test_pictures_are_drawn_once(
    make: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = make(), []
    first = pictures.draw(model, WORDS, folder=tmp_path, tick=lambda *told: seen.append(told))
    assert seen == [(8, 10), (10, 10)]
    with monkeypatch.context() as patched:
        patched.setattr(pictures, "sample_latents", None)
        assert torch.equal(pictures.draw(make(), WORDS, folder=tmp_path), first)
        with pytest.raises(TypeError):
            pictures.draw(make(seed=1), WORDS, folder=tmp_path)
        with pytest.raises(TypeError):
            pictures.draw(make(), WORDS[1:], folder=tmp_path)
    damaged = next((tmp_path / "pictures").iterdir())
    damaged.write_bytes(b"garbage")
    assert torch.equal(pictures.draw(make(), WORDS, folder=tmp_path), first)


def test_a_cache_that_cannot_be_written(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        pictures.draw(model, ["cat"], folder=tmp_path / "file")


def test_what_a_grid_shows_before_the_edit_is_drawn_once(
    make: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path))
    asked, model = (["cat", "dog"], [0, 1]), make()
    first = [one.tobytes() for one in pictures.images(model, *asked)]
    assert first == [one.tobytes() for one in model.sample(*asked)]
    with monkeypatch.context() as patched:
        patched.setattr(Model, "sample", None)
        assert [one.tobytes() for one in pictures.images(make(), *asked)] == first
        with pytest.raises(TypeError):  # another network, another decoder, other weights, other seeds
            pictures.images(make(seed=1), *asked)
        other = make()
        with torch.no_grad():
            other.pipe.vae.decoder.conv_out.bias += 0.5
        with pytest.raises(TypeError):
            pictures.images(other, *asked)
        name, weight = next(iter(model.weights("text").items()))
        with model.wearing({name: weight + 0.1}), pytest.raises(TypeError):
            pictures.images(model, *asked)
        with pytest.raises(TypeError):
            pictures.images(model, ["cat", "dog"], [0, 2])


def test_a_grid_needs_no_cache(model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path / "file"))
    assert len(pictures.images(model, ["cat"], [0])) == 1


NAMES = st.text(st.characters(exclude_categories=HIDDEN), min_size=1, max_size=30).filter(str.strip)


@given(st.lists(NAMES, min_size=1, max_size=3), st.booleans())
def test_prompts_hold_every_wording_in_every_template(wordings: list[str], templates: bool) -> None:
    concept = Concept(wordings[0], phrases=tuple(wordings[1:]))
    found = prompts(concept, HINTS, templates=templates)
    assert found[: len(concept.wordings)] == concept.wordings
    forms = ("{}", *HINTS.templates["object"]) if templates else ("{}",)
    assert len(found) == len(forms) * len(concept.wordings)
    for (form, wording), prompt in zip(texts(concept, HINTS, templates=templates), found, strict=True):
        assert prompt == format_prompt(form, wording)


def test_neighbours(model: Model) -> None:
    request = Request((Concept("cat"),))
    found = neighbours(model, request, 4)
    assert {one.name for one in found[:3]} == {"dog", "bear", "car"}  # all objects before any style
    assert found[3].kind == "style"
    near = [model.encode([one.name])[0, model.last_token(one.name)] for one in found[:3]]
    cat = model.encode(["cat"])[0, model.last_token("cat")]
    cosines = [torch.cosine_similarity(cat, one, dim=0).item() for one in near]
    assert cosines == sorted(cosines, reverse=True)
    assert neighbours(model, request, 0) == ()
    kept = (Concept("tree"),)
    assert neighbours(model, Request((Concept("cat"),), keep=kept), 4) == kept
    assert len(neighbours(model, request, 99)) == 5


TOML = """
[sampling]
steps = 25
guidance = 6
[vocabulary]
objects = ["cat", "dog"]
[templates]
style = ["a {} picture"]
[training]
checkpointing = true
[methods.esd.object]
lr = 1e-4
[erase]
method = "uce"
"""


def test_hints_from_a_file(tmp_path: Path) -> None:
    assert read(tmp_path) is GENERAL
    (tmp_path / FILE).write_text(TOML)
    hints = read(tmp_path)
    assert (hints.steps, hints.guidance, hints.objects, hints.text) == (25, 6.0, ("cat", "dog"), TOML)
    assert hints.styles == GENERAL.styles
    assert hints.templates["style"] == ("a {} picture",)
    assert hints.templates["object"] == GENERAL.templates["object"]
    assert hints.training == {"checkpointing": True}
    assert hints.settings("esd", "object") == {"lr": 1e-4}
    assert hints.settings("esd", "style") == {} == hints.settings("uce", "object")
    assert (hints.method, GENERAL.method) == ("uce", "esd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= 3", "is not TOML"),
        ("[samplin]\nsteps = 3", "unknown table 'samplin' .did you mean 'sampling'"),
        ("[sampling]\nstep = 3", "unknown key sampling.step .did you mean 'steps'"),
        ("[sampling]\nsteps = 0", "steps is a whole number from 1"),
        ("[sampling]\ntokens = 0", "tokens from 1 to 4096"),
        ("[sampling]\nguidance = -1", "guidance a number from 0"),
        ("[vocabulary]\nobjects = [1]", "a list of words"),
        ("[templates]\nobject = ['cat']", "one"),
        ("[training.esd]\nlr = 1", "a text, a number, a list, true or false"),
        ("[erase]\nmethod = 3", "the name of a method"),
        ("[methods.esd.things]\nlr = 1", "methods.NAME.object"),
    ],
)
def test_wrong_hints_are_one_line(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_a_hints_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="is not UTF-8 text"):
        read(tmp_path)


def test_general_templates_fit_their_own_rules() -> None:
    for kind, forms in Hints().templates.items():
        assert kind in ("object", "style")
        assert all(form.count("{}") == 1 for form in forms)


def test_a_picture_of_the_cache_that_was_exchanged_is_drawn_again(
    make: Callable[..., Model], tmp_path: Path
) -> None:
    """By hand with a header that fits, by another entry's file, or by one of an older version without a hash."""
    first, second = (pictures.draw(make(), [word], folder=tmp_path / word) for word in ("cat", "dog"))
    cat, dog = (next((tmp_path / word / "pictures").iterdir()) for word in ("cat", "dog"))
    kept, (latents, facts) = cat.read_bytes(), tensors.read(cat)

    def again() -> bool:
        same = torch.equal(pictures.draw(make(), ["cat"], folder=tmp_path / "cat"), first)
        return same and cat.read_bytes() == kept

    assert not torch.equal(first, second)
    tensors.write(cat, {"latents": latents["latents"] + 1}, facts)
    assert again()
    cat.write_bytes(dog.read_bytes())
    assert again()
    tensors.write(cat, {"latents": latents["latents"] + 1}, {"prompts": ["cat"]})
    assert again()


def test_words_that_contain_what_is_erased_are_not_kept(model: Model) -> None:
    told = model.with_hints(replace(model.hints, objects=("bear", "teddy bear", "dog", "beard")))
    request = Request((Concept("bear"),))
    assert unerased(told, request)["object"] == ["dog", "beard"]
    assert {one.name for one in neighbours(told, request, 9)} >= {"dog", "beard"}
    assert not {"bear", "teddy bear"} & {one.name for one in neighbours(told, request, 9)}
    scenes = grammar.read_without("scenes", frozenset({"dog", "sketch"}))
    every = [word for pool in scenes.words.values() for words in pool.values() for word in words]
    assert "dog" in str(grammar.read("scenes").words) and not any(
        contains_word(one, ["dog", "sketch"]) for one in every
    )
