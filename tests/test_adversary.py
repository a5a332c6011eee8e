"""The adversary beside any method that trains: what it finds, what is then trained, and what it costs."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import killed
from quick import quick
from test_ca import batch, first, plain

from kinds import pipeline
from unlearnkit.errors import InputError
from unlearnkit.methods import METHODS, edit_for, plan
from unlearnkit.model.edit import Edit
from unlearnkit.model.encoders import embedding_spread, placeholder
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.adversary import Adversary, adversary_of
from unlearnkit.training.job import Job
from unlearnkit.training.net import DenoiserInput, Net, Step, mse
from unlearnkit.training.settings import Training

CAT = Request((Concept("cat", instead="dog"),), keep=(Concept("dog"),))
PLAIN = Request((Concept("cat"),), keep=CAT.keep)  # for methods that put nothing in its place
OWN: dict[str, dict[str, Any]] = {"duge": {"attention_weight": 0.0, "output_weight": 1.0}}
TRAINED = [
    name
    for name, method in METHODS.items()
    if issubclass(method, Training) and name not in ("finetune", "advunlearn")
]


def rows(model: Model) -> DenoiserInput:
    draws, t = torch.Generator().manual_seed(0), torch.tensor([100, 300, 500, 700])
    return DenoiserInput(torch.randn((4, *model.shape), generator=draws), t, model.encode(["cat"] * 4))


def made(model: Model, method: str = "ca", *, folder: Path | None = None, **changes: Any) -> Edit:
    settings = quick(method, **OWN.get(method, {}), **changes)
    request = CAT if METHODS[method].REPLACES else PLAIN
    return edit_for(model, request, method=method, settings=settings, seed=2, job=Job(folder=folder))


@pytest.mark.parametrize("kind", ["embedding", "prefix"])
def test_it_finds_what_is_nearer_to_the_concept_and_changes_every_second_row(kind: Any, model: Model) -> None:
    settings = replace(Training(), adversary=kind, adversary_steps=30, adversary_vectors=2)
    adversary, net, given = Adversary(model, "dog", settings), Net(model), rows(model)
    (target,) = net.teacher([given])
    found = adversary.attacked(net, given, Step(0, 3))
    with torch.no_grad():
        before, after = (
            mse(model.eps(given.x, given.t, cond.expand_as(given.cond)), target).item()
            for cond in (model.encode([adversary.prompt]), found.cond[1])
        )
    assert after < 0.5 * before
    assert torch.equal(found.cond[::2], given.cond[::2]) and torch.equal(found.cond[1], found.cond[3])
    assert torch.equal(found.x, given.x)
    vectors = {name: vector.clone() for name, vector in adversary.vectors.items()}
    other = adversary.attacked(net, given, Step(1, 3))  # no search at step 1: every is 5
    assert torch.equal(other.cond[1::2], given.cond[1::2]) and not torch.equal(other.cond[0], given.cond[0])
    assert all(torch.equal(vectors[name], vector) for name, vector in adversary.vectors.items())


def test_the_vectors_stay_within_the_radius(model: Model) -> None:
    settings = replace(Training(), adversary="embedding", adversary_steps=15, adversary_radius=0.5)
    adversary = Adversary(model, "cat", settings)
    adversary.attacked(Net(model), rows(model), Step(0, 3))
    (vectors,), (spread,) = adversary.vectors.values(), embedding_spread(model.pipe).values()
    lengths = vectors.norm(dim=1) / (spread * vectors.shape[1] ** 0.5)
    assert lengths.max() < 0.5 + 1e-5
    free = Adversary(model, "cat", replace(settings, adversary_radius=0.0))
    free.attacked(Net(model), rows(model), Step(0, 3))
    assert free.vectors["text_encoder"].norm(dim=1).max() > vectors.norm(dim=1).max()


def test_the_erasing_loss_is_taken_there_too(model: Model, tmp_path: Path) -> None:
    """With vectors of length 0 the conditioning is known: that of a token whose embedding is 0."""
    how = {"adversary": "prefix", "adversary_vectors": 1, "adversary_radius": 1e-12}
    settings = {"steps": 1, "batch": 3, "pictures": 3, "lr": 1e-3, **how}
    edit_for(model, CAT, method="ca", settings=settings, seed=2, job=Job(folder=tmp_path))
    dogs, cats = ([word, f"a photo of a {word}", f"{word} in a picture"] for word in ("dog", "cat"))
    x, t, _, which = batch(model, "ca", dogs)
    told = plain(model, x, t, [cats[place] for place in which])
    asked = plain(model, x, t, [dogs[place] for place in which])
    word = placeholder(model.pipe, 1)
    embeddings = model.pipe.text_encoder.get_input_embeddings().weight
    (number,) = model.pipe.tokenizer(word).input_ids[1:2]
    before = embeddings[number].clone()
    with torch.no_grad():
        embeddings[number] = 0
        told[1] = plain(model, x, t, [f"{word} cat"] * 3)[1]
        embeddings[number] = before
    assert first(tmp_path)["erase"] == pytest.approx((told - asked).square().mean().item(), rel=1e-4)


@pytest.mark.parametrize("method", TRAINED)
def test_every_method_that_trains_takes_it(method: str, model: Model) -> None:
    how = {"adversary": "embedding", "adversary_steps": 2, "adversary_every": 2, "count": 2}
    assert made(model, method, **how).hash() != made(model, method, count=2).hash()


@pytest.mark.parametrize("when", [1, 3])
def test_killed_between_two_searches_it_ends_with_the_same_bits(
    when: int, model: Model, tmp_path: Path
) -> None:
    settings = quick("ca", adversary="prefix", adversary_steps=2, adversary_every=3)

    def erase(job: Job | None = None) -> str:
        return edit_for(model, CAT, method="ca", settings=settings, seed=5, job=job).hash()

    def die(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == when:
            os.kill(os.getpid(), signal.SIGKILL)

    job = Job(folder=tmp_path, checkpoint_every=1)
    killed(lambda: erase(replace(job, progress=die)))
    assert not (tmp_path / "edit.safetensors").exists()
    assert erase(job) == erase()


def test_the_dry_run_counts_its_searches(model: Model) -> None:
    settings = quick("ca", steps=6, batch=3)
    counts = [
        plan(model, CAT, method="ca", settings=settings | how).passes
        for how in ({}, {"adversary": "prefix", "adversary_steps": 10, "adversary_every": 5})
    ]
    # each search predicts the target of 3 rows once, and passes 3 rows forward and backward ten times
    assert counts == [(3.0, 3.0), (3.0 + 3 / 5, 3.0 + 3 * 10 / 5)]


def test_what_it_cannot_do_is_refused(model: Model, tmp_path: Path) -> None:
    def refused(says: str, method: str, request: Request = CAT, **changes: Any) -> None:
        settings = quick(method, adversary="prefix", **changes)
        with pytest.raises(InputError, match=says):
            edit_for(model, request, method=method, settings=settings)

    refused("this method gives only retain, none that erases", "finetune", PLAIN)
    refused("advunlearn has an adversary of its own", "advunlearn", PLAIN)
    refused("attention maps compare its tokens one by one: set attention_weight=0", "duge")
    refused("what stands before one name", "ca", Request((Concept("cat"), Concept("car"))))
    classes = Model(pipeline("class-conditional DiT", tmp_path))
    with pytest.raises(InputError, match=r"learns vectors in place of words, and .* reads none"):
        adversary_of(classes, CAT, replace(Training(), adversary="prefix"))


def test_one_embedding_is_sought_for_several_concepts(model: Model) -> None:
    both = Request((Concept("cat"), Concept("car")))
    found = [
        edit_for(model, both, method="ca", settings=quick("ca", adversary=adversary)).hash()
        for adversary in ("none", "embedding")
    ]
    assert found[0] != found[1]
