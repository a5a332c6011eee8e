"""Concept Ablation's losses by a plain route, and what its settings mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from unlearnkit import seeds
from unlearnkit.data import pictures
from unlearnkit.data.grammar import pairs, read
from unlearnkit.data.image_sets import ImageSet
from unlearnkit.data.prompts import unerased
from unlearnkit.errors import InputError
from unlearnkit.methods import edit_for, plan
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.anchors import anchored
from unlearnkit.training.attention import detach_bos
from unlearnkit.training.job import Job, Run
from unlearnkit.training.net import Net

CAT = Request((Concept("cat", instead="dog"),))
QUICK: dict[str, Any] = {"steps": 1, "batch": 3, "pictures": 3, "lr": 1e-3}
KEPT = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def ca(model: Model, request: Request = CAT, *, folder: Path | None = None, **changes: Any) -> Edit:
    return edit_for(model, request, method="ca", settings=QUICK | changes, seed=2, job=Job(folder=folder))


def first(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    return found


def batch(
    model: Model, name: str | tuple[str, ...], prompts: list[str], earliest: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first step's x_t, t, ε and which pictures, from the labels of its draws."""
    labels = (name,) if isinstance(name, str) else name
    latents, draws = pictures.draw(model, prompts), seeds.stream(2, *labels, 0)
    which = torch.randint(len(latents), (3,), generator=draws)
    t = torch.randint(earliest, 1000, (3,), generator=draws)
    noise = torch.randn((3, *model.shape), generator=draws)
    share = torch.tensor(KEPT)[t].view(-1, 1, 1, 1)
    return (share**0.5 * latents[which] + (1 - share) ** 0.5 * noise).float(), t, noise, which


def plain(model: Model, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    """ε straight from the U-Net."""
    states = torch.cat([model.pipe.encode_prompt(prompt, "cpu", 1, False)[0] for prompt in prompts])
    with torch.no_grad():
        out: Tensor = model.pipe.unet(x, t, encoder_hidden_states=states).sample
    if model.pipe.scheduler.config.prediction_type == "v_prediction":
        share = torch.tensor(KEPT)[t].view(-1, 1, 1, 1)
        out = (share**0.5 * out + (1 - share) ** 0.5 * x).float()
    return out


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_its_first_losses_are_those_of_the_plain_network(
    prediction: str, make: Callable[..., Model], tmp_path: Path
) -> None:
    model = make(prediction=prediction)
    dogs, cats = ([word, f"a photo of a {word}", f"{word} in a picture"] for word in ("dog", "cat"))
    ca(model, retain_weight=0.2, folder=tmp_path / "model")
    ca(model, target="noise", folder=tmp_path / "noise")
    x, t, noise, which = batch(model, "ca", dogs)
    told = plain(model, x, t, [cats[place] for place in which])
    asked = plain(model, x, t, [dogs[place] for place in which])
    assert first(tmp_path / "model")["erase"] == pytest.approx(
        (told - asked).square().mean().item(), rel=1e-4
    )
    assert first(tmp_path / "noise")["erase"] == pytest.approx(
        (told - noise).square().mean().item(), rel=1e-4
    )
    x, t, noise, which = batch(model, "ca keep", dogs)
    kept = (plain(model, x, t, [dogs[place] for place in which]) - noise).square().mean()
    assert first(tmp_path / "model")["retain"] == pytest.approx(0.2 * kept.item(), rel=1e-4)


def test_a_grammar_fills_the_prompts(model: Model) -> None:
    request = Request((Concept("cat", instead="dog"),))
    found = anchored(Run(model, request, Net(model)), 5, grammar="plain")
    forms = pairs(
        read("plain"), "object", ("cat",), ["dog"], unerased(model, request), count=5, seed=0, share=1.0
    )
    assert torch.equal(found.concept_cond, model.encode([concerning for concerning, _ in forms]))
    assert ca(model, grammar="plain").hash() != ca(model).hash()


def test_kept_words_can_be_drawn_to_the_base_model(model: Model, tmp_path: Path) -> None:
    """What the untouched network says of them is what is wanted: no loss at first, some after a step."""
    changes = {"retain_weight": 1.0, "neighbours": 2, "retain_target": "teacher", "prompt_dropout": 0.5}
    ca(model, steps=2, folder=tmp_path, **changes)
    lines = [json.loads(line)["retain"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0] == pytest.approx(0, abs=1e-9) and lines[1] > 1e-7
    found = plan(model, CAT, method="ca", settings=QUICK | changes)
    # without gradient 3 rows for the anchor and 3 that are kept; with, 3 of each; 3 pictures of either side
    assert (found.passes, found.sampled_images) == ((6.0, 6.0), 6)


@given(count=st.integers(1, 40), share=st.floats(0, 0.9))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_share_of_pictures_is_told_nothing(count: int, share: float, model: Model) -> None:
    latents = torch.arange(count).float().reshape(-1, 1, 1, 1)
    images = ImageSet(model, latents, model.encode(["a dog"]), torch.zeros(count, dtype=torch.long))
    found = images.with_prompt_dropout(share)
    nothing, again = found.cond[found.prompt_index] == model.encode([""]), found.latents[count:].flatten()
    assert torch.equal(found.latents[:count], latents)
    assert nothing.flatten(1).all(1).tolist() == [False] * count + [True] * len(again)
    assert abs(len(again) - share * len(found.latents)) <= 0.5 + 1e-9  # rounded to whole pictures
    seen = torch.bincount(again.long(), minlength=count)
    assert seen.max() - seen.min() <= 1  # none is taken twice before every other


def test_the_teacher_is_the_base_or_moves_along(model: Model) -> None:
    one, two = ({"teacher": teacher} for teacher in ("frozen", "student"))
    assert ca(model, **one).hash() == ca(model, **two).hash()  # the first step: they are the same network
    assert ca(model, steps=3, **one).hash() != ca(model, steps=3, **two).hash()


def test_the_start_token_teaches_nothing(model: Model) -> None:
    """∂L/∂K for held starts is that of the usual graph less the part that comes through the first token's column."""
    x, t, states = torch.randn((2, *model.shape)), torch.tensor([10, 700]), model.encode(["cat", "a dog"])
    weights = model.weights("xattn-kv")
    seen: list[tuple[Tensor, Tensor]] = []

    def note(_: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(lambda gradient: seen.append((given[0], gradient)))

    name = next(iter(weights))
    hook = model.denoiser.get_submodule(
        name.removeprefix("unet.").removesuffix(".weight")
    ).register_forward_hook(note)
    before = model.eps(x, t, states)
    (usual,) = torch.autograd.grad(before.square().mean(), weights[name])
    hook.remove()
    given, gradient = seen[0]
    with detach_bos(model):
        after = model.eps(x, t, states)
        (held,) = torch.autograd.grad(after.square().mean(), weights[name])
    assert torch.equal(after, before)
    torch.testing.assert_close(held, usual - gradient[:, 0].T @ given[:, 0])
    assert not torch.allclose(held, usual)
    assert not any(module._forward_hooks for module in model.denoiser.modules())


def test_several_concepts_go_in_one_request(model: Model) -> None:
    request = Request((Concept("cat", instead="car"), Concept("van gogh", kind="style", instead="art")))
    assert ca(model, request, steps=2).weights
    assert plan(model, request, method="ca", settings=QUICK).sampled_images == 6


def test_an_anchor_that_is_one_of_the_concepts_names_is_refused() -> None:
    with pytest.raises(
        InputError, match="'cat' cannot be replaced by its own phrase 'kitten': give another 'instead'"
    ):
        Concept("cat", phrases=("kitten",), instead="kitten")


@pytest.mark.parametrize(
    ("method", "pictures"),
    [
        *(("ca", "pictures"), ("doco", "pictures"), ("duge", "retain_pictures")),
        *(("erasediff", "retain_pictures"), ("selective_amnesia", "retain_pictures")),
    ],
)
def test_no_pictures_are_refused(method: str, pictures: str, model: Model) -> None:
    with pytest.raises(InputError, match=f"setting '{pictures}' got 0: it takes a whole number, at least 1"):
        edit_for(model, CAT, method=method, settings={pictures: 0})
