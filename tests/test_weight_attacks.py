"""Relearning and everyday changes of weights: each formula against another route."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from test_attacks import pixels, victim, worn

from unlearnkit import seeds
from unlearnkit.attacks import Attempt, SearchResult, find
from unlearnkit.attacks.changes import changed, pruned, quantised, with_noise
from unlearnkit.attacks.drawing import draw_attempts
from unlearnkit.attacks.relearning import Relearning
from unlearnkit.attacks.retraining import train_weights
from unlearnkit.attacks.weight_changes import LARGER, WeightChanges
from unlearnkit.errors import InputError
from unlearnkit.model.model import Model
from unlearnkit.parts import lora

W = torch.randn((9, 13), generator=seeds.stream(0, "w"))


# changes of weights


def test_quantised_by_hand() -> None:
    # 3 bits: seven steps from -3 to 3 of 0.5, for the largest is 1.5
    w = torch.tensor([[0.2, -0.3, 1.5], [0.74, -1.26, 0.0]])
    assert quantised(w, 3).tolist() == [[0.0, -0.5, 1.5], [0.5, -1.5, 0.0]]
    blocks = torch.cat([w.flatten(), torch.zeros(58), 10 * w.flatten()])  # a new scale after 64 entries
    assert quantised(blocks, 3)[64:].tolist() == [0.0, -5.0, 15.0, 5.0, -15.0, 0.0]


def test_more_bits_are_nearer() -> None:
    far = [(quantised(W, bits) - W).abs().max().item() for bits in (2, 4, 8)]
    assert far[0] > far[1] > far[2] > 0
    assert far[2] <= W.abs().max() / 127 / 2 + 1e-6


def test_pruned_by_numpy() -> None:
    limit = np.quantile(W.abs().numpy(), 0.3, method="higher")
    np.testing.assert_array_equal(pruned(W, 0.3), np.where(W.abs().numpy() < limit, 0, W.numpy()))
    assert torch.equal(pruned(W, 0.0), W)


def test_noise_has_its_share_of_the_spread() -> None:
    w = torch.randn((400, 400), generator=seeds.stream(0, "w")) * 3
    moved = with_noise(w, 0.05, seeds.stream(0, "noise")) - w
    assert moved.std().item() == pytest.approx(0.15, rel=0.02)


def test_an_edit_is_scaled_and_averaged_between_base_and_edit(model: Model) -> None:
    one = victim(
        model, applied=worn(model)
    )  # 1.1 times the matrices that read the text, 0.9 times one of the encoder
    names = list(one.applied)
    base = {name: weight.detach().clone() for name, weight in model.values(names).items()}
    for strength in (0.5, 1.5):
        ours = changed(one, f"edit {strength}", {})
        assert set(ours) == set(names)
        for name in names:
            factor = 1 + strength * ((0.9 if name.startswith("text") else 1.1) - 1)
            torch.testing.assert_close(ours[name], factor * base[name], rtol=1e-4, atol=1e-6)
    mean = changed(one, "mean", {names[0]: 1.3 * base[names[0]]})
    torch.testing.assert_close(
        mean[names[0]], 1.2 * base[names[0]], rtol=1e-4, atol=1e-6
    )  # 1 + (.1 + .3) / 2
    added = changed(one, "add", {names[0]: 1.3 * base[names[0]]})
    torch.testing.assert_close(added[names[0]], 1.4 * base[names[0]], rtol=1e-4, atol=1e-6)  # 1 + .1 + .3
    torch.testing.assert_close(mean[names[1]], 1.05 * base[names[1]], rtol=1e-4, atol=1e-6)


def test_changes_reach_the_picture(model: Model) -> None:
    """Half of an edit, text encoder included, draws as a model whose weights are half way there."""
    one = victim(model, applied=worn(model))
    found = SearchResult((Attempt("half", one.prompt, 4, change="edit 0.5"),))
    (ours,) = draw_attempts(one, found, found.attempts)
    half = {n: (w + model.values([n])[n].detach()) / 2 for n, w in one.applied.items()}
    with model.wearing(half):
        (theirs,) = model.sample([one.prompt], [4], batch=1)
    assert np.abs(pixels([ours]).astype(int) - pixels([theirs]).astype(int)).max() <= 1


def test_bits_change_matrices_only(model: Model) -> None:
    ours = changed(victim(model), "bits 4", {})
    assert set(ours) == {name for name, one in model.weights("all").items() if one.dim() > 1}
    assert set(changed(victim(model), "bfloat16", {})) == set(model.weights("all"))
    with pytest.raises(InputError, match="'bits' is unknown"):
        changed(victim(model), "bits", {})


def test_another_scheduler_draws_as_diffusers_draws_with_it(model: Model) -> None:
    found = SearchResult((Attempt("x", "a cat", 4, scheduler="EulerAncestralDiscreteScheduler"),))
    own = model.pipe.scheduler
    (ours,) = draw_attempts(victim(model), found, found.attempts)
    assert model.pipe.scheduler is own
    model.pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(own.config)
    (theirs,) = model.sample(["a cat"], [4], batch=1)
    assert ours == theirs
    model.pipe.scheduler = own
    assert (
        ours
        != draw_attempts(
            victim(model), SearchResult((Attempt("x", "a cat", 4),)), [Attempt("x", "a cat", 4)]
        )[0]
    )
    with pytest.raises(InputError, match="no scheduler of diffusers"):
        draw_attempts(victim(model), found, [Attempt("x", "a cat", 4, scheduler="UNet2DModel")])


def test_larger_pictures_are_those_of_diffusers(model: Model) -> None:
    one = victim(model)
    thorough = dataclasses.replace(one, budget=dataclasses.replace(one.budget, thorough=True))
    found = WeightChanges(tuned=2).search(thorough)
    asked = [each for each in found.attempts if each.arm == LARGER]
    ours, rows = pixels(draw_attempts(one, found, asked)), found.tensors["larger"]
    assert [each.row for each in asked] == list(range(len(rows)))
    c, h, w = model.shape
    assert rows.shape[1:] == (c, 3 * h // 2, 3 * w // 2)
    side = ours.shape[1]
    how = {"height": side, "width": side, "num_inference_steps": model.hints.steps}
    with torch.no_grad():
        theirs = model.pipe(
            [one.prompt] * len(rows), latents=rows, guidance_scale=model.hints.guidance, **how
        ).images
    assert np.abs(ours.astype(int) - pixels(theirs).astype(int)).max() <= 1


# relearning


def test_the_first_step_of_relearning_is_adams(model: Model) -> None:
    """Adam's first step moves each weight by lr against the sign of its gradient, here from the pipeline itself."""
    one = victim(model, applied=worn(model))
    (after,) = train_weights(one, [one.prompt] * 2, [1], rank=0, rate=1e-4).values()
    draws, x0 = one.stream("relearning", 0, 0), one.examples()
    which = torch.randint(2, (2,), generator=draws)
    t = torch.randint(1000, (2,), generator=draws)
    noise = torch.randn((2, *model.shape), generator=draws)
    share = model.pipe.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    x = share.sqrt() * x0[which] + (1 - share).sqrt() * noise
    with one.edited():
        states = model.encode([one.prompt] * 2)
        start = {name: weight.detach().clone() for name, weight in model.weights("all").items()}
        with (
            model.wearing({name: weight.requires_grad_() for name, weight in start.items()}),
            torch.enable_grad(),
        ):
            loss = ((model.pipe.unet(x, t, states).sample - noise) ** 2).mean()
            gradients = torch.autograd.grad(loss, list(start.values()))
    for (name, weight), gradient in zip(start.items(), gradients, strict=True):
        clear = gradient.abs() > 1e-4  # where Adam's epsilon plays no part
        moved = (after[name] - weight.detach())[clear]
        torch.testing.assert_close(moved, -1e-4 * gradient.sign()[clear], rtol=0.02, atol=1e-6)


def test_relearning_keeps_each_number_of_steps_apart(model: Model) -> None:
    one = victim(model)
    after = train_weights(one, [one.prompt] * 2, [2, 4], rank=2, rate=1e-3)
    names = set(lora.matrices(model.weights("xattn")))
    assert set(after) == {2, 4}
    assert set(after[2]) == set(after[4]) == names
    assert any(not torch.equal(after[2][name], after[4][name]) for name in names)
    again = train_weights(one, [one.prompt] * 2, [2], rank=2, rate=1e-3)
    assert all(torch.equal(again[2][name], after[2][name]) for name in names)
    for name in names:
        change = (after[4][name] - model.values([name])[name].detach()).double()
        assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 2


def test_relearning_lowers_the_loss_on_the_concept(model: Model) -> None:
    one = victim(model, applied=worn(model))
    attack = Relearning(full=(30,), low_rank=(1,), benign=1, rate=1e-3)
    found, x = attack.search(one), one.examples().repeat(16, 1, 1, 1)
    t, noise = torch.arange(32) * 31, torch.randn((32, *model.shape), generator=seeds.stream(0, "noise"))

    def loss(weights: dict[str, torch.Tensor]) -> float:
        with one.edited(weights), torch.no_grad():
            eps = model.eps(model.add_noise(x, noise, t), t, model.encode([one.prompt] * 32))
        return (eps - noise).square().mean().item()

    assert loss(found.group("all weights, 30 steps", "/")) < loss({})


def test_float16_is_not_trained(model: Model) -> None:
    assert "float16" in str(find("relearning").refuses(model.cast(torch.float16)))


def test_a_model_of_its_own_has_no_edit_to_scale(model: Model) -> None:
    doubled = {name: one.detach() * 2 for name, one in model.weights("xattn-kv").items()}
    name, own = next(iter(doubled.items()))
    base = model.values([name])[name].detach()
    edit, whole = victim(model, applied=doubled), victim(model, applied=doubled, whole=True)
    assert torch.allclose(changed(edit, "edit 0.5", {})[name], 1.5 * base)
    assert torch.allclose(changed(whole, "edit 0.5", {})[name], own)
    other = {name: base + 1}
    assert torch.allclose(changed(whole, "mean", other)[name], own + 0.5)
    assert torch.allclose(changed(edit, "mean", other)[name], 1.5 * base + 0.5)
