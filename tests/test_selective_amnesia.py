"""Selective Amnesia: Fisher information and its pull by other routes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ca import KEPT, batch, plain

from unlearnkit import seeds
from unlearnkit.data import pictures
from unlearnkit.errors import InputError
from unlearnkit.methods import edit_for, plan
from unlearnkit.methods.selective_amnesia import Elastic, SelectiveAmnesia
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job, Run
from unlearnkit.training.net import Net

CAT = Request((Concept("cat", instead="car"),), keep=(Concept("dog"),))
QUICK: dict[str, Any] = {
    **{"steps": 1, "batch": 3, "pictures": 3, "retain_pictures": 3, "lr": 1e-3},
    **{"fisher_pictures": 2, "fisher_times": 2},
}
DOGS, CATS, CARS = ([word, f"a photo of a {word}", f"{word} in a picture"] for word in ("dog", "cat", "car"))


def erase(model: Model, *, job: Job | None = None, **changes: Any) -> Edit:
    return edit_for(model, CAT, method="selective_amnesia", settings=QUICK | changes, seed=2, job=job)


def test_fisher_information_is_the_mean_square_of_plain_gradients(model: Model) -> None:
    method = SelectiveAmnesia(trains="xattn-kv", fisher_pictures=2, fisher_times=3)
    run = Run(model, CAT, Net(model), seed=4)
    found = method.fisher(run, run.images(DOGS))
    latents, expected = pictures.draw(model, DOGS), dict[str, torch.Tensor]()
    for number, place in ((0, 0), (1, 1)):  # two of three pictures, spread
        draws = seeds.stream(4, "fisher", number)
        t = torch.randint(1000, (3,), generator=draws)
        noise = torch.randn((3, *model.shape), generator=draws)
        share = torch.tensor(KEPT)[t].view(-1, 1, 1, 1)
        x = (share**0.5 * latents[place] + (1 - share) ** 0.5 * noise).float()
        states = model.pipe.encode_prompt(DOGS[place], "cpu", 1, False)[0].expand(3, -1, -1)
        model.denoiser.zero_grad()
        (model.pipe.unet(x, t, encoder_hidden_states=states).sample - noise).square().mean().backward()
        for name, weight in model.denoiser.named_parameters():
            if f"unet.{name}" in found:
                expected[name] = expected.get(name, 0) + weight.grad.clone() ** 2 / 2
    for name, value in expected.items():
        torch.testing.assert_close(found[f"unet.{name}"], value, rtol=1e-3, atol=1e-12)


def test_the_elastic_pull_is_the_gradient_of_its_penalty() -> None:
    start, information = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 0.5])}
    weights = {"a": torch.tensor([1.5, 0.0], requires_grad=True)}
    penalty = 50 * (information["a"] * (weights["a"] - start["a"]) ** 2).sum()
    (expected,) = torch.autograd.grad(penalty, [weights["a"]])
    found = Elastic(start, information, 50.0).regularize_grad(weights, {"a": torch.tensor([1.0, 1.0])})
    torch.testing.assert_close(found["a"], 1 + expected)
    assert expected.tolist() == [150.0, -100.0]


def test_the_first_losses_are_those_of_the_plain_network(model: Model, tmp_path: Path) -> None:
    erase(model, retain_weight=0.5, job=Job(folder=tmp_path))
    line = json.loads((tmp_path / "log.jsonl").read_text())
    for name, label, asked, told, weight in (
        ("erase", "selective amnesia", CARS, CATS, 1.0),
        ("retain", "selective amnesia keep", DOGS, DOGS, 0.5),
    ):
        x, t, noise, which = batch(model, label, asked)
        error = (plain(model, x, t, [told[place] for place in which]) - noise).square().mean()
        assert line[name] == pytest.approx(weight * error.item(), rel=1e-4)


def test_weights_that_matter_move_less(model: Model) -> None:
    free, held = (erase(model, steps=6, elastic=elastic).weights for elastic in (0.0, 1e9))
    start = model.weights()
    way = [
        sum((value - start[name].detach()).square().sum().item() for name, value in one.items())
        for one in (free, held)
    ]
    assert way[1] < 0.5 * way[0]


def test_a_low_rank_update_cannot_be_held(model: Model) -> None:
    with pytest.raises(InputError, match="the elastic penalty constrains the weights themselves"):
        erase(model, trains="lora")
    assert erase(model, trains="lora", elastic=0.0, steps=2).weights


def test_the_plan_counts_fisher_information(model: Model) -> None:
    changes = {**QUICK, "steps": 4, "fisher_pictures": 10, "fisher_times": 2}
    found = plan(model, CAT, method="selective_amnesia", settings=changes)
    assert (found.passes, found.sampled_images) == ((0.0, 6 + 5.0), 6)
