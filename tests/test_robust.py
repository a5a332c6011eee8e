"""Robust anchoring: its first losses by a plain route, what its latents are for, and what it costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from test_ca import KEPT, batch, first, plain
from torch import Tensor

import kinds
import tiny
from unlearnkit import seeds
from unlearnkit.data import pictures
from unlearnkit.data.image_sets import DenoiserInput, noise_ratio
from unlearnkit.data.wording import format_prompt
from unlearnkit.methods import edit_for, plan
from unlearnkit.methods.robust import Robust
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import sample_latents
from unlearnkit.schema import Concept, Request
from unlearnkit.training.adversary import Adversary
from unlearnkit.training.anchors import templates_for
from unlearnkit.training.job import Job, Run
from unlearnkit.training.net import Net, Step

CAT = Request((Concept("cat", instead="dog"),))
FORMS = ("{}", "a photo of a {}", "{} in a picture")
QUICK: dict[str, Any] = {
    "steps": 1, "batch": 3, "pictures": 3, "latent_pictures": 3, "neighbours": 2, "retain_pictures": 2,
    "lr": 1e-3, "relative_erase": False, "retain_weight": 4.0, "retain_batch": 3, "retain_grammar": "",
    "adversary": "none",
}  # fmt: skip


def robust(model: Model, *, folder: Path | None = None, **changes: Any) -> Edit:
    return edit_for(model, CAT, method="robust", settings=QUICK | changes, seed=2, job=Job(folder=folder))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_its_first_losses_are_those_of_the_plain_network(
    prediction: str, make: Callable[..., Model], tmp_path: Path
) -> None:
    model = make(prediction=prediction)
    robust(model, latent_weight=0.5, latent_from=0.4, latent_cap=2.0, folder=tmp_path)
    dogs, cats = ([form.format(word) for form in FORMS] for word in ("dog", "cat"))
    x, t, _, which = batch(model, "robust", dogs)
    named = plain(model, x, t, [cats[place] for place in which])
    anchor = plain(model, x, t, [dogs[place] for place in which])
    assert first(tmp_path)["erase"] == pytest.approx((named - anchor).square().mean().item(), rel=1e-4)
    assert first(tmp_path)["retain"] == pytest.approx(0, abs=1e-9)  # the student still is the base model

    x, t, _, which = batch(model, "robust latents", cats, earliest=400)
    numbers = pictures.image_seeds(cats)  # the picture with the anchor has the same seed
    y = sample_latents(model, dogs, numbers, steps=model.hints.steps, guidance=model.hints.guidance)
    kept = torch.tensor(KEPT)[t].view(-1, 1, 1, 1)
    goal = (x - kept**0.5 * y[which]) / (1 - kept) ** 0.5
    weight = 0.5 * ((1 - kept) / kept).clamp_max(2.0)
    none, own = plain(model, x, t, [""] * 3), plain(model, x, t, [cats[place] for place in which])
    g = model.hints.guidance
    expected = {
        "erase_latents": (weight * (none - goal) ** 2).mean().item(),
        "erase_guided": (weight * ((1 - g) * none + g * own - goal) ** 2).mean().item() / g,
    }
    assert {name: first(tmp_path)[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert g > 1


def test_what_is_kept_is_kept_as_guidance_combines_it(model: Model, tmp_path: Path) -> None:
    """The second step's loss, by the network after the first."""
    how = {"schedule": "constant", "latent_weight": 0.0, "neighbours": 0}
    robust(model, steps=2, folder=tmp_path, **how)
    edit = robust(model, steps=1, **how)
    dogs = [form.format("dog") for form in FORMS]
    latents, draws = pictures.draw(model, dogs), seeds.stream(2, "robust keep", 1)
    which, t = (torch.randint(most, (3,), generator=draws) for most in (3, 1000))
    noise, kept = torch.randn((3, *model.shape), generator=draws), torch.tensor(KEPT)[t].view(-1, 1, 1, 1)
    x = (kept**0.5 * latents[which] + (1 - kept) ** 0.5 * noise).float()
    sides = [[""] * 3, [dogs[place] for place in which]]
    before = [plain(model, x, t, prompts) for prompts in sides]
    with model.wearing(edit):
        after = [plain(model, x, t, prompts) for prompts in sides]
    none, own = (a - b for a, b in zip(after, before, strict=True))
    g = model.hints.guidance
    off = none.square().mean() + ((1 - g) * none + g * own).square().mean() / g
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[1]["retain"] == pytest.approx(4.0 / 2 * off.item(), rel=1e-3)


def test_of_a_flow_the_goal_is_the_velocity_that_leads_to_the_anchors_picture(tmp_path: Path) -> None:
    hints = dataclasses.replace(tiny.HINTS, steps=2, size=16)
    model = Model(kinds.pipeline("Stable Diffusion 3/3.5", tmp_path / "words"), hints=hints)
    robust(model, latent_cap=0.5, folder=tmp_path)
    cats, dogs = ([form.format(word) for form in FORMS] for word in ("cat", "dog"))
    x, y = pictures.draw(model, cats), pictures.draw(model, dogs, seeds_of=cats)
    draws = seeds.stream(2, "robust latents", 0)
    which = torch.randint(3, (3,), generator=draws)
    t = torch.randint(int(0.3 * model.num_timesteps), model.num_timesteps, (3,), generator=draws)
    noise, sigma = torch.randn((3, *model.shape), generator=draws), model.schedule.sigma(t).view(-1, 1, 1, 1)
    noisy = (1 - sigma) * x[which] + sigma * noise
    with torch.no_grad():
        none = model.eps(noisy, t, model.encode([""]).expand(3, -1, -1))
    expected = (sigma.square().clamp_max(0.5) * (none - (noisy - y[which]) / sigma) ** 2).mean()
    assert first(tmp_path)["erase_latents"] == pytest.approx(3 * expected.item(), rel=1e-3)


def test_pure_noise_has_a_goal(make: Callable[..., Model], tmp_path: Path) -> None:
    """Schedules that end in pure noise have nothing of the picture in x_t: λ is huge there."""
    model = make(prediction="v_prediction")
    betas = {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True, "clip_sample": False}
    model.pipe.scheduler = DDIMScheduler(prediction_type="v_prediction", **betas)
    model = Model(model.pipe, source="tiny", hints=tiny.HINTS)
    assert noise_ratio(model, torch.tensor([999])) > 1e5
    edit = robust(model, latent_from=0.95, steps=4, batch=16, folder=tmp_path)
    assert all(torch.isfinite(value).all() for value in edit.weights.values())
    drawn = torch.cat([seeds_of_step(step) for step in range(4)])
    assert 999 in drawn.tolist()


def seeds_of_step(step: int) -> Tensor:
    """The times at which a step of that test noises its latents."""
    draws = seeds.stream(2, "robust latents", step)
    torch.randint(3, (16,), generator=draws)
    return torch.randint(950, 1000, (16,), generator=draws)


def test_a_relative_loss_is_in_units_of_the_way_to_the_target(model: Model, tmp_path: Path) -> None:
    for relative in (False, True):
        robust(model, relative_erase=relative, folder=tmp_path / str(relative))
    cats, dogs = ([form.format(word) for form in FORMS] for word in ("cat", "dog"))
    latents, draws = pictures.draw(model, cats), seeds.stream(2, "robust first")
    t = torch.randint(1000, (3,), generator=draws)
    x = model.add_noise(latents, torch.randn((3, *model.shape), generator=draws), t)
    goal, own = (plain(model, x, t, prompts) for prompts in (dogs, cats))
    y = pictures.draw(model, dogs, seeds_of=cats)
    assert not torch.equal(y, pictures.draw(model, dogs))
    units = {"erase": (goal - own).square().mean().item()}
    units |= dict.fromkeys(("erase_latents", "erase_guided"), (latents - y).square().mean().item())
    plainly, divided = (first(tmp_path / name) for name in ("False", "True"))
    for name, unit in units.items():
        assert divided[name] == pytest.approx(plainly[name] / unit, rel=1e-4)


def test_without_its_latents_it_draws_no_picture_of_the_concept(model: Model, tmp_path: Path) -> None:
    robust(model, latent_weight=0.0, folder=tmp_path)
    assert first(tmp_path).keys() - {"step", "seconds"} == {"erase", "retain"}
    counts = [plan(model, CAT, method="robust", settings=QUICK | {"latent_weight": w}) for w in (0.0, 1.0)]
    assert [(one.sampled_images, one.passes) for one in counts] == [(7, (9.0, 9.0)), (13, (9.0, 15.0))]


def test_noised_pictures_of_the_concept_are_denoised_to_the_anchors(model: Model, tmp_path: Path) -> None:
    """More training lowers these losses."""
    robust(model, retain_weight=0.1, schedule="constant", steps=60, batch=8, folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for name in ("erase_latents", "erase_guided"):
        assert sum(row[name] for row in rows[-10:]) < 0.7 * sum(row[name] for row in rows[:10])


def test_concepts_of_both_kinds_go_in_one_request(model: Model) -> None:
    request = Request((Concept("cat", instead="car"), Concept("van gogh", kind="style", instead="art")))
    edit = edit_for(model, request, method="robust", settings=QUICK | {"steps": 2})
    assert edit.weights and tiny.moved(model, edit)["cat"] > 0


def test_the_adversary_stands_in_the_concepts_place_on_its_own_pictures(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, attacked = list[Tensor](), Adversary.attacked

    def recorded(self: Adversary, net: Net, rows: DenoiserInput, step: Step) -> DenoiserInput:
        seen.append(rows.cond)
        return attacked(self, net, rows, step)

    monkeypatch.setattr(Adversary, "attacked", recorded)
    edit = robust(model, adversary="embedding", adversary_steps=1)
    _, _, _, which = batch(model, "robust latents", cats := [form.format("cat") for form in FORMS], 300)
    torch.testing.assert_close(seen[-1], model.encode([cats[place] for place in which]))
    assert edit.hash() != robust(model).hash()


def test_what_is_kept_is_shown_in_sentences_where_there_are_words_for_them(model: Model) -> None:
    request = Request(CAT.erase, keep=(Concept("car"),))
    for told, grammar in ((model, "plain"), (model.with_hints(replace(model.hints, styles=())), "")):
        run = Run(told, request, Net(told))
        with run.contexts:
            sets = Robust(**QUICK | {"retain_grammar": "plain"}).data(run)
        kept = [format_prompt(*pair) for pair in templates_for(told, request, request.keep[0], 2, grammar)]
        torch.testing.assert_close(sets.retain.cond[-2:], told.encode(kept))
