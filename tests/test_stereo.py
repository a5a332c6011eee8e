"""STEREO: its loss by a plain route, its search, and that a killed search goes on."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import killed
from test_ca import batch, plain

from kinds import pipeline
from unlearnkit import seeds
from unlearnkit.data.prompts import prompts_for
from unlearnkit.errors import InputError
from unlearnkit.io import tensors
from unlearnkit.methods import STEREO, edit_for, plan
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job, Run
from unlearnkit.training.net import Net, Step, mse

CAT = Request((Concept("cat"),), keep=(Concept("dog"),))
CATS = ["cat", "a photo of a cat", "cat in a picture"]
QUICK: dict[str, Any] = {
    "steps": 2, "batch": 3, "pictures": 3, "lr": 1e-3, "anchors": 2, "search_rounds": 2, "search_steps": 2,
    "search_lr": 1e-3, "inversion_steps": 4,
}  # fmt: skip


def test_the_loss_steers_to_the_anchors_and_away_from_prompts_and_vectors(model: Model) -> None:
    method = STEREO(**QUICK | {"search_rounds": 0, "strength": 3.0})
    sets = method.data(Run(model, CAT, net := Net(model), seed=2))
    sets.found.append(model.encode(["bear"]))
    step = Step(0, 2)
    found = method.loss(net, sets, step)["erase"].item()

    x, t, _, _ = batch(model, "stereo", CATS)
    draws = seeds.stream(2, "stereo", 0)
    for _ in range(2):  # which pictures, which times
        torch.randint(1, (3,), generator=draws)
    torch.randn((3, *model.shape), generator=draws)
    asked = [CATS[torch.randint(3, (1,), generator=draws)], "bear"]
    own = [asked[place] for place in torch.randint(2, (3,), generator=draws)]
    benign = prompts_for(model, CAT, Concept("dog"), 4)
    anchors = [benign[place] for place in torch.randint(4, (2,), generator=draws)]

    def told(prompt: str) -> torch.Tensor:
        return plain(model, x, t, [prompt] * 3)

    null = told("")
    towards, away = (sum(told(one) - null for one in prompts) / 2 for prompts in (anchors, asked))
    expected = (plain(model, x, t, own) - (null + 2.0 * towards - 4.0 * away)).square().mean().item()
    assert len(set(own)) == 2
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_search_is_esd_and_then_an_inversion(model: Model) -> None:
    method = STEREO(**QUICK | {"search_rounds": 1, "inversion_steps": 60, "inversion_lr": 0.1})
    sets = method.data(Run(model, CAT, net := Net(model), seed=2))
    x = sets.images.batch(64, seeds.stream(0, "held out"))
    with torch.no_grad():
        (found,) = sets.found
        errors = [
            mse(model.eps(x.input.x, x.input.t, cond.expand_as(x.input.cond)), x.noise).item()
            for cond in (found, model.encode(["a"]))
        ]
    assert errors[0] < errors[1]

    x, t, _, _ = batch(model, "stereo search", CATS)
    sets.found.clear()
    draws = seeds.stream(2, "stereo search", 0)
    for _ in range(2):
        torch.randint(1, (3,), generator=draws)
    torch.randn((3, *model.shape), generator=draws)
    prompt = CATS[torch.randint(3, (1,), generator=draws)]
    base = {name: weight.detach() for name, weight in model.weights(method.part).items()}
    null, own = (plain(model, x, t, [text] * 3) for text in ("", prompt))
    found = method.esd(net, sets, Step(0, 2), base)["erase"]
    assert found.item() == pytest.approx((own - (null - (own - null))).square().mean().item(), rel=1e-4)


@pytest.mark.parametrize("stage", ["inversion 1", "search 2", "training"])
def test_a_killed_search_goes_on(stage: str, model: Model, tmp_path: Path) -> None:
    def erase(job: Job | None = None) -> str:
        return edit_for(model, CAT, method="stereo", settings=QUICK, seed=5, job=job).hash()

    def die(now: str, done: int, total: int) -> None:
        if now == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    job = Job(folder=tmp_path, checkpoint_every=1)
    killed(lambda: erase(replace(job, progress=die)))
    if stage != "inversion 1":
        _, facts = tensors.read(tmp_path / "search.safetensors")
        assert facts["done"] == (1 if stage == "search 2" else 2)
    assert erase(job) == erase()
    assert not (tmp_path / "search.safetensors").exists()


def test_the_dry_run_counts_the_search(model: Model) -> None:
    found = plan(model, CAT, method="stereo", settings=QUICK)
    # the search: 2 rounds of 2 steps with 3 rows for the teacher's two and the student's one prediction, and of 4 steps
    # of the inversion; each of the 2 steps afterwards: the empty prompt, 2 anchors, the concept and 2 vectors
    assert found.passes == ((2 * 2 * 2 * 3 + 2 * 6 * 3) / 2, (2 * (2 + 4) * 3 + 2 * 3) / 2)


def test_a_model_without_words_is_refused(tmp_path: Path) -> None:
    classes = Model(pipeline("class-conditional DiT", tmp_path))
    with pytest.raises(InputError, match=r"stereo learns vectors in place of words, and .* reads none"):
        edit_for(classes, CAT, method="stereo")
