"""DoCo: domains, surgery, the discriminator's share of a step, and its survival of a kill."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from test_ca import KEPT, batch, plain
from torch import Tensor

import tiny
from unlearnkit import seeds
from unlearnkit.errors import InputError
from unlearnkit.methods import doco, edit_for, plan
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.parts.discriminator import Discriminator
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job

CAT = Request((Concept("cat", instead="dog"),))
QUICK: dict[str, Any] = {"steps": 2, "discriminator_warmup": 2, "batch": 3, "pictures": 3, "lr": 1e-3}
DOGS, CATS = ([word, f"a photo of a {word}", f"{word} in a picture"] for word in ("dog", "cat"))


def erase(model: Model, request: Request = CAT, *, job: Job | None = None, **changes: Any) -> Edit:
    return edit_for(model, request, method="doco", settings=QUICK | changes, seed=2, job=job)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def critics(monkeypatch: pytest.MonkeyPatch) -> list[Discriminator]:
    """Every discriminator that a run makes."""
    made: list[Discriminator] = []

    def make(*args: Any, **settings: Any) -> Discriminator:
        made.append(Discriminator(*args, **settings))
        return made[-1]

    monkeypatch.setattr(doco, "Discriminator", make)
    return made


def test_clean_undoes_noised_for_every_time(model: Model) -> None:
    draws = torch.Generator().manual_seed(0)
    picture, noise = (torch.randn((5, *model.shape), generator=draws) for _ in range(2))
    t = torch.tensor([0, 100, 500, 900, 999])
    found = model.predicted_x0(model.add_noise(picture, noise, t), noise, t)
    torch.testing.assert_close(found, picture, rtol=1e-4, atol=1e-4)


def test_a_last_step_of_pure_noise_has_a_finite_picture(make: Callable[..., Model]) -> None:
    """Zero terminal SNR: the last step holds nothing of the picture."""
    model = make(prediction="v_prediction")
    betas = {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True, "clip_sample": False}
    model.pipe.scheduler = DDIMScheduler(prediction_type="v_prediction", **betas)
    model = Model(model.pipe, source="tiny", hints=tiny.HINTS)
    x, t = torch.randn((2, *model.shape)), torch.tensor([999, 500])
    eps = model.eps(x, t, model.encode(["cat", "dog"]))
    assert torch.isfinite(model.predicted_x0(x, eps, t)).all()


def losses(**vectors: list[float]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses whose gradients are the vectors, for the weights a and b."""
    weights = {name: torch.zeros(2, requires_grad=True) for name in ("a", "b")}
    found = {
        side: (torch.cat(list(weights.values())) * torch.tensor(vectors[side])).sum() for side in vectors
    }
    return found, weights


def test_the_released_surgery_by_hand() -> None:
    # a: |g_u| = 0.1 and cos = -0.85, so that -cos is 8.5 times as long as g_u; b: no conflict
    given = {"erase": [-0.085, 0.1 * (1 - 0.85**2) ** 0.5, 0.3, 0.0], "retain": [0.5, 0.0, 0.2, 0.4]}
    found = doco.unscaled(0, *losses(**given))
    torch.testing.assert_close(found["b"], torch.tensor([0.3, 0.0]))
    torch.testing.assert_close(found["a"], torch.tensor([-0.085 + 0.85, given["erase"][1]]))
    assert found["a"].norm() == pytest.approx(0.767, abs=1e-3)  # 7.7 times g_u
    assert F.cosine_similarity(found["a"], torch.tensor([1.0, 0.0]), dim=0).item() > 0.997
    # both are clipped to a norm of 1 over all weights first: |(3, 4)| = 5
    torch.testing.assert_close(
        doco.unscaled(0, *losses(erase=[3, 0, 0, 4], keep=[1, 0, 0, 1]))["a"], torch.tensor([0.6, 0.0])
    )


def test_the_first_losses_are_those_of_the_plain_network(model: Model, tmp_path: Path) -> None:
    erase(model, discriminator_warmup=0, steps=1, job=Job(folder=tmp_path))
    x, t, _, which = batch(model, "doco", DOGS)
    anchor, target = (plain(model, x, t, [words[place] for place in which]) for words in (DOGS, CATS))
    share = torch.tensor(KEPT)[t].view(-1, 1, 1, 1)
    anchor, target = (((x - (1 - share) ** 0.5 * noise) / share**0.5).float() for noise in (anchor, target))
    critic = Discriminator(model.shape, seed=seeds.derive(2, "doco"))
    zero, one = critic.logits(anchor), critic.logits(target)
    bce = F.binary_cross_entropy_with_logits
    expected = bce(zero, torch.zeros_like(zero)) + bce(one, torch.ones_like(one))
    (line,) = lines(tmp_path)
    assert line["discriminator"] == pytest.approx(expected.item(), rel=1e-3)
    critic.learn(anchor, target)
    one = critic.logits(target)
    assert line["erase"] == pytest.approx(bce(one, torch.zeros_like(one)).item(), rel=1e-3)
    x, t, noise, which = batch(model, "doco keep", DOGS)
    kept = (plain(model, x, t, [DOGS[place] for place in which]) - noise).square().mean()
    assert line["retain"] == pytest.approx(kept.item(), rel=1e-4)


def test_the_warm_up_trains_the_discriminator_alone(
    model: Model, critics: list[Discriminator], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="changes no weight"):
        erase(model, discriminator_warmup=3, steps=0, job=Job(folder=tmp_path))
    first = Discriminator(model.shape, seed=seeds.derive(2, "doco")).weights
    assert all(not torch.equal(weight, first[name]) for name, weight in critics[0].weights.items())
    assert [line.keys() for line in lines(tmp_path)] == [{"step", "discriminator", "right", "seconds"}] * 3
    # the steps after it are the student's, as many as asked for
    assert erase(model, discriminator_warmup=3, steps=1).weights


def test_the_discriminators_step_does_not_depend_on_the_students(
    model: Model, critics: list[Discriminator]
) -> None:
    with pytest.raises(InputError, match="changes no weight"):
        erase(model, lr=0.0, discriminator_warmup=1, steps=1)
    moving = erase(model, lr=1e-2, discriminator_warmup=1, steps=1)
    released = erase(model, lr=1e-2, discriminator_warmup=1, steps=1, released=True)
    assert moving.weights
    assert released.weights
    isolated, also, leaking = (critic.tensors() for critic in critics[1::2])  # each plan makes one before
    assert all(torch.equal(isolated[name], also[name]) for name in isolated)
    assert not all(torch.equal(isolated[name], leaking[name]) for name in isolated)


def test_interrupted_in_either_phase_it_goes_on_to_the_same_bits(
    model: Model, critics: list[Discriminator], tmp_path: Path
) -> None:
    expected = erase(model, steps=3).hash()
    for when in (1, 4):

        def interrupt(stage: str, done: int, total: int, when: int = when) -> None:
            if stage in ("warm-up", "training") and done == when:
                raise KeyboardInterrupt

        folder = tmp_path / str(when)
        with pytest.raises(KeyboardInterrupt):
            erase(
                model,
                steps=3,
                job=Job(folder=folder, checkpoint_every=1, progress=interrupt),
            )
        job = Job(folder=folder, checkpoint_every=1)
        assert erase(model, steps=3, job=job).hash() == expected
        assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4, 5]
    one, *others = (critic.tensors() for critic in critics[::2])
    assert all(torch.equal(one[name], other[name]) for other in others for name in one)


@pytest.mark.parametrize(
    "changes",
    [
        {"retain_target": "teacher", "teacher": "student"},
        {"combine": "sum", "retain_weight": 0.0},
        {"combine": "restricted", "trains": "lora"},
        {"adds": 1.0, "mask": "dynamic", "mask_warmup": 1, "rule": ("l2sp",)},
    ],
)
def test_its_settings_go_together(changes: dict[str, Any], model: Model) -> None:
    request = Request((Concept("cat", instead="car"), Concept("van gogh", kind="style", instead="art")))
    assert erase(model, request, steps=2, discriminator_warmup=1, **changes).weights


def test_what_makes_no_sense_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="released=true changes the surgery, and combine=sum has none"):
        erase(model, released=True, combine="sum")
    with pytest.raises(InputError, match="combine=preserving-tensor needs an erasing and a retain loss"):
        erase(model, retain_weight=0.0)


def test_the_plan_counts_the_warm_up(model: Model) -> None:
    found = plan(
        model,
        CAT,
        method="doco",
        settings={"discriminator_warmup": 30, "steps": 10, "batch": 2, "pictures": 5},
    )
    # 30 steps of 2 x 2 rows without gradient; 10 of 2 without, and 2 x 2 with
    assert (found.steps, found.passes, found.sampled_images) == (40, (3.5, 1.0), 5)
