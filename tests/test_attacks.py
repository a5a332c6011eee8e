"""Attacks on toy models: what they find is data, drawn again to the same pictures, and the model is left as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from quick import brief

from unlearnkit import seeds
from unlearnkit.attacks import ATTACKS, Attempt, Budget, SearchResult, Victim, find
from unlearnkit.attacks.drawing import batches, draw_attempts
from unlearnkit.attacks.learning import denoising_loss
from unlearnkit.attacks.phrasings import typos, words_for
from unlearnkit.attacks.probe import losses
from unlearnkit.attacks.random_search import RandomSearch
from unlearnkit.attacks.sdedit import SDEdit
from unlearnkit.errors import InputError
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import decoded, denoising, sample_latents
from unlearnkit.schema import Concept

TINY = Budget("tiny", steps=3, batch=2, candidates=2, pictures=2, examples=2)


def victim(model: Model, **changes: object) -> Victim:
    return Victim(model, Concept("cat"), TINY, **changes)


def worn(model: Model) -> dict[str, torch.Tensor]:
    """An edit that changes the matrices that read the text, and one of the text encoder."""
    weights = {name: 1.1 * value.detach() for name, value in model.weights("xattn-kv").items()}
    return weights | {n: 0.9 * v.detach() for n, v in list(model.weights("text-encoder").items())[:1]}


def pixels(pictures: list) -> np.ndarray:
    return np.stack([np.asarray(one) for one in pictures])


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_attack_finds_is_data_that_draws_the_same_again(name: str, model: Model, tmp_path: Path):
    before = model.fingerprint()
    one = victim(model, applied=worn(model), folder=tmp_path / "parts")
    attack = brief(name)
    assert attack.refuses(model) is None
    found = attack.search(one)
    found.save(tmp_path)
    again = SearchResult.load(tmp_path)
    assert again is not None
    assert again.attempts == found.attempts
    assert {n: t.shape for n, t in again.tensors.items()} == {n: t.shape for n, t in found.tensors.items()}
    for numbers in batches(found.attempts, 4):
        group = [found.attempts[i] for i in numbers]
        first, second = draw_attempts(one, found, group), draw_attempts(one, again, group)
        assert (pixels(first) == pixels(second)).all()
        assert len(first) == len(group)
    assert model.fingerprint() == before
    rerun = attack.search(victim(model, applied=worn(model)))  # without the parts of the first search
    assert all(torch.equal(rerun.tensors[n].float().cpu(), t) for n, t in again.tensors.items())


@pytest.mark.parametrize("thorough", [True, False], ids=["thorough", "quick"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_computes_what_it_says(
    name: str, thorough: bool, model: Model, monkeypatch: pytest.MonkeyPatch
):
    rows = {True: 0, False: 0}
    forward = Model.forward

    def counted(self: Model, x: torch.Tensor, t: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        result = forward(self, x, t, states)
        rows[result.requires_grad] += len(x)
        return result

    monkeypatch.setattr(Model, "forward", counted)
    budget = dataclasses.replace(TINY, thorough=thorough)
    one = dataclasses.replace(victim(model), budget=budget)
    one.examples()  # drawn by the pipeline itself, which ``forward`` does not count
    found = brief(name).search(one)
    cost = brief(name).cost(budget)
    assert len(found.arms) == cost.arms
    assert len(found.attempts) == cost.arms * TINY.pictures
    # two guided pictures: one step each of two starts; three steps three times, or once; two of three steps of three
    # arms, or of one; UCE tries its edit on four rows
    begun = {
        "completion": 4 * 2,
        "text_free": 4 * 3 * (3 if thorough else 1),
        "latent_guidance": 4 * 2 * (3 if thorough else 1),
        "weight_changes": 4,
    }.get(name, 0)
    assert (rows[True], rows[False]) == (cost.gradient, cost.forward + begun)


def test_the_denoising_loss_is_that_of_ddpm(model: Model):
    x, states = torch.randn(3, *model.shape, generator=seeds.stream(0, "x")), model.encode(["cat"])
    loss = denoising_loss(model, x, states, seeds.stream(0, "draws"))
    draws, bar = seeds.stream(0, "draws"), model.pipe.scheduler.alphas_cumprod
    t = torch.randint(1000, (3,), generator=draws)
    noise = torch.randn(x.shape, generator=draws)
    total = 0.0
    for i in range(3):
        noisy = bar[t[i]].sqrt() * x[i] + (1 - bar[t[i]]).sqrt() * noise[i]
        with torch.no_grad():
            output = model.pipe.unet(noisy[None], t[i], states).sample[0]
        total += float(((output - noise[i]) ** 2).mean())
    assert loss.item() == pytest.approx(total / 3, rel=1e-5)


def test_learned_vectors_lower_the_loss(model: Model):
    one = Victim(model, Concept("cat"), dataclasses.replace(TINY, steps=20, batch=4), applied=worn(model))
    found = find("inversion").search(one)
    group = found.group("4 vectors")
    assert group["text_encoder"].shape == (4, 16)
    with one.edited(), torch.no_grad():
        prompt = found.attempts[-1].prompt
        x = one.examples().repeat(32, 1, 1, 1)
        learned = denoising_loss(model, x, model.conditioning([prompt], group), seeds.stream(0, "loss"))
        plain = denoising_loss(model, x, model.encode([prompt]), seeds.stream(0, "loss"))
    assert learned < plain


def test_continued_from_the_first_step_a_picture_is_the_pipelines_own(model: Model):
    noise = torch.stack([torch.randn(model.shape, generator=seeds.generator(i)) for i in (0, 1)])
    found = SearchResult(tuple(Attempt("x", "cat", i, start="x", row=i) for i in (0, 1)), {"x": noise})
    continued = draw_attempts(victim(model), found, found.attempts)
    own = model.sample(["cat", "cat"], [0, 1])
    assert np.abs(pixels(continued).astype(int) - pixels(own).astype(int)).max() <= 1


def test_a_mask_keeps_its_half_of_the_picture(model: Model):
    start = sample_latents(model, ["dog"], [3], steps=3, guidance=4.0)
    mask = torch.zeros(model.shape[1:])
    mask[:, :4] = 1
    found = SearchResult((Attempt("half", "cat", 7, start="x", mask="m"),), {"x": start, "m": mask})
    (picture,) = draw_attempts(victim(model), found, found.attempts)
    (whole,) = decoded(model, start)
    assert picture != whole
    states = model.encode(["cat"])
    noise = torch.randn((1, *model.shape), generator=seeds.generator(7))
    with torch.no_grad():
        path = denoising(model, noise.clone(), states, model.encode([""]), steps=3, guidance=4.0)
        for step, (x, t) in enumerate(path):
            known = start if step == 3 else model.add_noise(start, noise, t.long().view(1))
            x.copy_(mask * known + (1 - mask) * x)
    assert torch.equal(x[..., :4], start[..., :4])
    assert (pixels([picture]) == pixels(decoded(model, x))).all()


def test_a_filter_strikes_its_word(model: Model):
    one = victim(model, filtered="cat")
    assert one.read("a photo of a Cat here") == ("a photo of a  here", "cat")
    assert one.read("a catalogue") == ("a catalogue", "")
    found = SearchResult((Attempt("x", "a photo of a cat", 1),))
    (struck,) = draw_attempts(one, found, found.attempts)
    assert struck == model.sample(["a photo of a "], [1], negative="cat")[0]


def test_a_damaged_find_is_refused(model: Model, tmp_path: Path):
    found = SearchResult((Attempt("x", "cat", 1, start="x"),), {"x": torch.zeros(1, *model.shape)})
    found.save(tmp_path)
    path = tmp_path / "found.json"
    for old, new, says in (
        ('"start": "x"', '"start": "y"', "no tensor 'y'"),
        ('"row": 0', '"row": 4', "no row 4"),
        ('"row": 0', '"rows": 0', "rows|row"),
        ('"arm": "x"', '"arm": ""', "damaged"),
        ('"steps": null', '"steps": "many"', "steps"),
    ):
        text = path.read_text()
        path.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=says):
            SearchResult.load(tmp_path)
        path.write_text(text)
    assert SearchResult.load(tmp_path / "nowhere") is None
    with pytest.raises(InputError, match="attack 'inversio' is unknown"):
        find("inversio")


def test_the_probe_is_the_mean_over_times(model: Model):
    x = torch.randn(2, *model.shape, generator=seeds.stream(0, "x"))
    loss = losses(model, x, "cat", 2, seeds.stream(0, "draws"))
    draws, bar, total = seeds.stream(0, "draws"), model.pipe.scheduler.alphas_cumprod, torch.zeros(2)
    for t in (250, 750):
        noise = torch.randn(x.shape, generator=draws)
        with torch.no_grad():
            noisy = bar[t].sqrt() * x + (1 - bar[t]).sqrt() * noise
            output = model.pipe.unet(noisy, t, model.encode(["cat"] * 2)).sample
        total += ((output - noise) ** 2).sum((1, 2, 3)) / noise[0].numel() / 2
    assert loss.tolist() == pytest.approx(total.tolist(), rel=1e-5)


def test_half_noised_pictures_lie_on_the_schedule(model: Model):
    found = SDEdit(shares=(0.7,)).search(victim(model))
    (x,), one = found.tensors.values(), found.attempts[0]
    assert one.at == 0  # of the timesteps 667, 334 and 1
    scheduler = DDIMScheduler.from_config(model.pipe.scheduler.config)
    scheduler.set_timesteps(3)
    t = int(scheduler.timesteps[0])
    noise = torch.randn(x.shape, generator=victim(model).stream("sdedit", "noised to 70%"))
    bar = scheduler.alphas_cumprod[t]
    expected = bar.sqrt() * victim(model).examples(2) + (1 - bar).sqrt() * noise
    assert torch.allclose(x, expected, atol=1e-6)


def test_what_the_untouched_model_begins_it_would_end_as_its_own(model: Model):
    one = victim(model)
    found = find("completion").search(one)
    own = [each for each in found.attempts if each.arm.endswith("own prompt")][:2]
    noise = torch.randn((2, *model.shape), generator=one.stream("completion"))
    whole = SearchResult(tuple(Attempt("x", one.prompt, 0, start="x", row=i) for i in (0, 1)), {"x": noise})
    ours, theirs = pixels(draw_attempts(one, found, own)), pixels(draw_attempts(one, whole, whole.attempts))
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_the_untouched_encoder_is_put_back(model: Model):
    encoder = {n: 0.5 * v.detach() for n, v in model.weights("text-encoder").items()}
    one = victim(model, applied=encoder)
    found = find("inversion").search(one)
    assert "4 vectors, untouched encoder" in found.arms
    assert "4 vectors, untouched encoder" not in find("inversion").search(victim(model)).arms
    (attempt, *_) = [each for each in found.attempts if each.encoder == "base"]
    states = model.conditioning([attempt.prompt], found.group(attempt.vectors))
    with one.edited(one.base_encoders()):
        again = model.conditioning([attempt.prompt], found.group(attempt.vectors))
    assert torch.equal(states, again)


def test_wordings_leave_out_what_the_model_cannot_read(model: Model):
    found = find("wording").search(victim(model))
    assert found.arms == ("synonyms", "spellings", "sentences")
    assert all(len(model.pipe.tokenizer(one.prompt).input_ids) <= 12 for one in found.attempts)
    assert list(typos("cat")) == ["at", "ccat", "act", "ct", "caat", "cta", "ca", "catt"]
    words = words_for(Concept("cat", phrases=("moggy",)))
    assert words["synonyms"][:2] == ["moggy", "kitten"]
    assert {"CAT", "Cat", "Katze"} <= {*words["spellings"]}
    assert "cat" not in words["spellings"]
    assert words_for(Concept("zorp"))["spellings"][:2] == ["ZORP", "Zorp"]
    rare = find("wording").search(Victim(model, Concept("zorp"), TINY))
    assert rare.arms == ("spellings", "sentences")


def test_prefixes_under_which_the_classifier_sees_it_are_kept(model: Model):
    def held(pictures: Sequence[Any]) -> list[bool]:
        return [i % 2 == 1 for i in range(len(pictures))]

    attack = RandomSearch(kept=1)
    prompts = attack.candidates(victim(model))
    assert len(prompts) == 2
    assert attack.chosen(victim(model, shows=held), prompts) == prompts[1:]
    assert attack.chosen(victim(model), prompts) == prompts
    assert not any("cat" in p.removesuffix("a photo of a cat").split() for p in prompts)
