"""Attacks on latents: noisy sampling, guidance by a classifier and inversion, each against another route."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from test_attacks import TINY, pixels, victim, worn
from test_families import SIZE

import kinds
from unlearnkit import seeds
from unlearnkit.attacks import Victim, find
from unlearnkit.attacks.drawing import draw_attempts
from unlearnkit.attacks.latent_classifier import LatentClassifier, others, scales, slope, train
from unlearnkit.attacks.latent_guidance import LatentGuidance, output_shift
from unlearnkit.attacks.noise_probe import noisy
from unlearnkit.attacks.text_free import TextFree, invert_step
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import decoded
from unlearnkit.schema import Concept

FLOW = "Stable Diffusion 3/3.5"


def flow(words: Path) -> Model:
    return Model(kinds.pipeline(FLOW, words), source="tiny", hints=SIZE)


# the noise probe


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noisy_sampling_with_eta_up_to_one_is_diffusers_ddim(
    prediction: str, make: Callable[..., Model]
) -> None:
    model, eta = make(prediction=prediction), 0.8
    states, null = (model.encode([text] * 2) for text in ("a cat", ""))
    with torch.no_grad():
        ours = noisy(model, states, null, [5, 6], steps=4, guidance=3.0, eta=eta, scale=1.0)
    draws = [seeds.generator(number) for number in (5, 6)]

    def noise() -> torch.Tensor:
        return torch.stack([torch.randn(model.shape, generator=one) for one in draws])

    scheduler = DDIMScheduler.from_config(model.pipe.scheduler.config)
    scheduler.set_timesteps(4)
    x = noise()
    for t in scheduler.timesteps:
        with torch.no_grad():
            out = model.pipe.unet(torch.cat([x, x]), t, torch.cat([null, states])).sample
        uncond, cond = out.chunk(2)
        x = scheduler.step(uncond + 3 * (cond - uncond), t, x, eta=eta, variance_noise=noise()).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_noisy_sampling_beyond_one_by_hand(model: Model) -> None:
    """One step from t = 1 to the end, where ᾱ is that of time 0: σ and the root by plain arithmetic."""
    states, null = model.encode(["a cat"]), model.encode([""])
    with torch.no_grad():
        ours = noisy(model, states, null, [5], steps=1, guidance=1.0, eta=1.5, scale=1.03)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    now, then = kept[1], kept[0]
    draws = seeds.generator(5)
    x = torch.randn((1, *model.shape), generator=draws)
    with torch.no_grad():
        eps = model.pipe.unet(x, 1, states).sample
    sigma = 1.5 * ((1 - then) / (1 - now)) ** 0.5 * (1 - now / then) ** 0.5
    picture = (x - (1 - now) ** 0.5 * eps) / now**0.5
    assert 1 - then - sigma**2 < 0  # so the absolute value matters
    expected = then**0.5 * picture + (sigma**2 + then - 1) ** 0.5 * eps
    expected += 1.03 * sigma * torch.randn((1, *model.shape), generator=draws)
    torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-4)


def test_a_probe_of_noise_is_drawn_by_the_edited_model(model: Model) -> None:
    one = victim(model, applied=worn(model))
    found = find("noise_probe").search(one)
    last = found.attempts[-1:]
    with one.edited(), torch.no_grad():
        states, null = model.encode([one.prompt]), model.encode([""])
        how = {"steps": 3, "guidance": 4.0, "eta": 1.68, "scale": 1.02}
        x = noisy(model, states, null, [last[0].seed], **how)
    assert (pixels(draw_attempts(one, found, last)) == pixels(decoded(model, x))).all()


def test_a_flow_has_no_noise_to_add(words: Path) -> None:
    assert "flow" in str(find("noise_probe").refuses(flow(words)))


# guidance


def test_the_slope_of_the_classifier_is_a_difference_quotient(model: Model) -> None:
    net = LatentClassifier(model.shape).double()
    x = torch.randn((1, *model.shape), generator=seeds.stream(0, "x"), dtype=torch.float64)
    at = torch.tensor([[0.8, 0.6]], dtype=torch.float64)
    way = torch.randn(x.shape, generator=seeds.stream(0, "way"), dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return -net(x, at).sigmoid().log()

    quotient = (loss(x + 1e-5 * way) - loss(x - 1e-5 * way)) / 2e-5
    ours = (slope(net.float(), x, at.float()) * way).sum()
    assert ours.item() == pytest.approx(quotient.item(), rel=1e-3)


def test_scales_are_those_of_the_schedule(model: Model, words: Path) -> None:
    bar, t = model.pipe.scheduler.alphas_cumprod, torch.tensor([3, 700])
    torch.testing.assert_close(scales(model, t), torch.stack([bar[t].sqrt(), (1 - bar[t]).sqrt()], 1))
    other = flow(words)
    sigma = other.schedule.sigma(t)
    torch.testing.assert_close(scales(other, t), torch.stack([1 - sigma, sigma], 1))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_every_prediction_is_shifted_as_the_noise_is(
    kind: str, make: Callable[..., Model], words: Path
) -> None:
    """The noise that the shifted output implies minus the one before is s √(1-ᾱ_t) ∇L, whatever is predicted."""
    model = flow(words) if kind == "flow" else make(prediction=kind)
    net, t = LatentClassifier(model.shape), torch.tensor(500)
    x, output = torch.randn((2, 2, *model.shape), generator=seeds.stream(0, "x"))
    shift, rows = output_shift(model, net, x, t, 30.0), t.expand(2)
    signal, spread = scales(model, rows).T.view(2, -1, 1, 1, 1)

    def noise(output: torch.Tensor) -> torch.Tensor:
        prediction = model.schedule.prediction(output, x, rows)
        picture = model.schedule.predicted_x0(x, prediction, rows)
        return (x - signal * picture) / spread

    expected = 30 * spread * slope(net, x, scales(model, rows))
    torch.testing.assert_close(noise(output + shift) - noise(output), expected, rtol=1e-3, atol=1e-4)


def test_the_classifier_knows_the_concept_from_other_words(model: Model) -> None:
    one = Victim(model, Concept("cat"), dataclasses.replace(TINY, steps=60, examples=8))
    assert others(one)[:2] == ["a photo of a dog", "a photo of a bear"]
    assert not any("cat" in prompt for prompt in others(one))
    net = train(one, "x")
    with torch.no_grad():
        seen = net(one.examples(), torch.tensor([[1.0, 0.0]]).expand(8, -1))
        rest = net(
            model.latents(model.sample(others(one), range(8))), torch.tensor([[1.0, 0.0]]).expand(8, -1)
        )
    assert seen.mean() > rest.mean()


def test_no_strength_is_plain_sampling_and_a_strong_one_is_more_of_the_concept(model: Model) -> None:
    attack = LatentGuidance(strengths=(0.0, 500.0))
    one = Victim(model, Concept("cat"), dataclasses.replace(TINY, steps=60, examples=8), applied=worn(model))
    found = attack.search(one)
    net = train(one, attack.name)
    noise = torch.randn((2, *model.shape), generator=one.stream(attack.name, "strength 0"))
    scheduler = DDIMScheduler.from_config(model.pipe.scheduler.config)
    scheduler.set_timesteps(3)
    with one.edited(), torch.no_grad():
        states, null = (model.encode([text] * 2) for text in (one.prompt, ""))
        x = noise
        for t in scheduler.timesteps[:2]:
            uncond, cond = model.pipe.unet(torch.cat([x, x]), t, torch.cat([null, states])).sample.chunk(2)
            x = scheduler.step(uncond + 4 * (cond - uncond), t, x).prev_sample
    torch.testing.assert_close(found.tensors["strength 0"], x, rtol=1e-4, atol=1e-4)
    at = torch.tensor([[0.9, 0.4]]).expand(2, -1)
    with torch.no_grad():
        assert net(found.tensors["strength 500"], at).mean() > net(x, at).mean() + 1


# inversion


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_a_step_back_leads_forward_again(kind: str, make: Callable[..., Model], words: Path) -> None:
    model = flow(words) if kind == "flow" else make(prediction=kind)
    schedule = model.family.schedule(model.pipe, model.shape)
    x, output = torch.randn((2, 2, *model.shape), generator=seeds.stream(0, "x"))
    for t in schedule.timesteps(4, model.device):
        back = invert_step(schedule, output, t, schedule.step(output, t, x))
        torch.testing.assert_close(back, x, rtol=1e-3, atol=1e-3)


def test_inverted_pictures_are_drawn_again_without_a_prompt(model: Model) -> None:
    one = victim(model, applied=worn(model))
    found = TextFree(rounds=30).search(one)
    again = pixels(draw_attempts(one, found, found.attempts)).astype(int)
    own = pixels(decoded(model, one.examples())).astype(int)
    assert np.abs(again - own).max() <= 2
    assert found.figures["mean square of the noise"] == pytest.approx(
        (found.tensors["noise"].numpy() ** 2).mean(), abs=1e-4
    )


def test_steps_that_clip_are_not_inverted(model: Model) -> None:
    model.pipe.scheduler.register_to_config(clip_sample=True)
    clipping = Model(model.pipe, source="tiny", hints=model.hints)
    assert "clips" in str(find("text_free").refuses(clipping))
