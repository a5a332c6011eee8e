"""AEGIS: its first loss by a plain route, its learned target, its regularisation by hand, and its ablations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from quick import quick
from test_ca import batch, first, plain

from kinds import pipeline
from unlearnkit import seeds
from unlearnkit.errors import InputError
from unlearnkit.methods import edit_for
from unlearnkit.methods.aegis import AEGIS
from unlearnkit.model.edit import Edit
from unlearnkit.model.encoders import random_vectors
from unlearnkit.model.model import Model
from unlearnkit.parts.rules import Directional
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job, Run
from unlearnkit.training.net import Net, Step

CAT = Request((Concept("cat"),))
CATS = ["cat", "a photo of a cat", "cat in a picture"]


def aegis(model: Model, *, folder: Path | None = None, **changes: Any) -> Edit:
    settings = {"steps": 1, "batch": 3, "pictures": 3, "lr": 1e-3} | changes
    return edit_for(model, CAT, method="aegis", settings=settings, seed=2, job=Job(folder=folder))


def vector(model: Model, label: str) -> torch.Tensor:
    return random_vectors(model.pipe, 1, seeds.stream(2, label, 0))["text_encoder"]


@pytest.mark.parametrize("learned", [True, False])
def test_its_first_loss_is_that_of_the_plain_network(learned: bool, model: Model, tmp_path: Path) -> None:
    """With step sizes of 0 both vectors are their random starts, and stand in the encoder's own table here."""
    aegis(model, attack_lr=0.0, target_lr=0.0, eta=1.5, learned_target=learned, folder=tmp_path)
    x, t, _, which = batch(model, "aegis", CATS)
    word = "bear"  # in no other prompt
    (number,) = model.pipe.tokenizer(word).input_ids[1:2]
    table = model.pipe.text_encoder.get_input_embeddings().weight
    before = table[number].clone()
    asked = [CATS[place] for place in which]
    away, null = plain(model, x, t, asked), plain(model, x, t, [""] * 3)
    with torch.no_grad():
        table[number] = vector(model, "aegis prompt")
        eps = plain(model, x, t, [f"{word} {prompt}" for prompt in asked])
        if learned:
            table[number] = vector(model, "aegis target")
            away = plain(model, x, t, [word] * 3)
        table[number] = before
    expected = (eps - (null - 1.5 * (away - null))).square().mean().item()
    assert first(tmp_path)["erase"] == pytest.approx(expected, rel=1e-4)


def test_the_target_is_learned_against_both_predictions(model: Model) -> None:
    """Its sign step is that of the two squared distances themselves, added."""
    method = AEGIS(batch=2, pictures=2, target_lr=0.25, attack_lr=0.0)
    net = Net(model)
    sets = method.data(run := Run(model, CAT, net))
    changed = {name: 1.2 * weight.detach() for name, weight in model.weights("xattn-kv").items()}
    net.begin_step(lambda: changed)
    step = Step(0, 2)
    z = sets.erase.batch(2, step.stream("aegis")).input
    (e_c,), (now,) = net.teacher([z]), net.student_sg([z])
    assert not torch.allclose(e_c, now)
    start = vector(model, "aegis target").requires_grad_()
    eps = model.eps(z.x, z.t, model.conditioning([sets.word] * 2, {"text_encoder": start}))
    both = (eps - now).square().mean() + (eps - e_c).square().mean()
    (gradient,) = torch.autograd.grad(both, start)
    net.begin_step(lambda: changed)
    method.loss(net, sets, step)
    found = sets.state.target["text_encoder"]
    torch.testing.assert_close(found, start.detach() - 0.25 * gradient.sign())
    assert run.state is sets.state


def test_the_regularisation_damps_only_steps_away_from_the_start() -> None:
    start = {"a": torch.zeros(2), "b": torch.zeros(1)}
    weights = {"a": torch.tensor([2.0, 0.0]), "b": torch.tensor([0.0])}
    rule = Directional(start, torch.tensor(0.5), 0.75)
    away = {"a": torch.tensor([-3.0, 4.0]), "b": torch.tensor([1.0])}  # a descent along +a leads away
    found = rule.regularize_grad(weights, away)
    assert found["a"].tolist() == [-1.5, 4.0] and found["b"].tolist() == [1.0]
    assert rule.omega == 1.0  # 0.5 + 0.75, and 1 at most
    found = rule.regularize_grad(weights, {"a": torch.tensor([-3.0, 4.0]), "b": torch.tensor([1.0])})
    assert found["a"].tolist() == [0.0, 4.0]
    back = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])}
    assert rule.regularize_grad(weights, back)["a"].tolist() == [3.0, 4.0]
    assert rule.regularize_grad(start, {"a": torch.ones(2), "b": torch.ones(1)})["a"].tolist() == [1.0, 1.0]


def test_its_ablations_are_other_edits(model: Model) -> None:
    rows: tuple[dict[str, Any], ...] = (
        *({}, {"learned_target": False}, {"directional": False}, {"omega": 1.0}),
        {"attack_lr": 0.0},
    )
    settings = quick("aegis", batch=2)
    edits = {
        edit_for(model, CAT, method="aegis", settings=settings | row | {"steps": 3, "lr": 1e-5}).hash()
        for row in rows
    }
    assert len(edits) == len(rows)


def test_what_it_cannot_do_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose directional=false, or trains=xattn"):
        aegis(model, trains="lora")
    assert aegis(model, trains="lora", directional=False).weights
    classes = Model(pipeline("class-conditional DiT", tmp_path))
    with pytest.raises(InputError, match=r"aegis learns vectors in place of words, and .* reads none"):
        edit_for(classes, CAT, method="aegis")
