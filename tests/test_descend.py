from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import killed
from quick import quick
from torch import Tensor

from unlearnkit import seeds
from unlearnkit.data.image_sets import DenoiserInput
from unlearnkit.errors import DivergedError, InputError, ModelError
from unlearnkit.methods import edit_for, resolve
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.parts import Losses
from unlearnkit.parts.mask import Mask
from unlearnkit.schema import Concept, Request
from unlearnkit.training.descend import Objective, descend, onecycle
from unlearnkit.training.job import EarlyStopping, Job, Run
from unlearnkit.training.net import Net, Step, mse
from unlearnkit.training.state import CHECKPOINT, LOG

REQUEST = Request((Concept("cat"),))
FULL = {
    **{"trains": "xattn-kv", "steps": 9, "lr": 1e-3, "batch": 2, "start": "pictures", "templates": True},
    **{"pictures": 4, "retain_weight": 1.0, "neighbours": 2, "retain_pictures": 2},
}


def esd(model: Model, *, job: Job | None = None, **changes: Any) -> Edit:
    return edit_for(model, REQUEST, method="esd", settings=FULL | changes, seed=1, job=job)


def toward_zero(model: Model, *, late: int = 0) -> Objective:
    """Predict no noise for "cat": the smallest objective there is. late: the step that counts as the first."""
    cond = model.encode(["cat", "cat"])

    def loss(net: Net, step: Step) -> Losses:
        x = torch.randn((2, *model.shape), generator=seeds.stream(0, "test", step.number - late))
        (eps,) = net.student([DenoiserInput(x, torch.tensor([500, 100]), cond)])
        return {"size": mse(eps, torch.zeros(()))}

    return Objective(loss)


def steps_in(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / LOG).read_text().splitlines()]


def test_training_lowers_the_loss_and_logs_each_step(model: Model, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    job = Job(folder=tmp_path, progress=lambda *told: seen.append(told))
    descend(Net(model), "all", toward_zero(model), steps=30, lr=3e-3, job=job)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert lines[-1]["size"] < lines[0]["size"] / 2
    assert steps_in(tmp_path) == list(range(1, 31))
    assert seen == [("training", step, 30) for step in range(1, 31)]


@pytest.mark.parametrize("start", ["student", "pictures"])
def test_killed_at_random_steps_it_goes_on_to_the_same_bits(start: str, model: Model, tmp_path: Path) -> None:
    changes = {"start": start, "start_steps": 4}
    expected = esd(model, **changes).hash()
    job = Job(folder=tmp_path / "run", checkpoint_every=2)
    for when in sorted(random.Random(start).sample(range(1, 10), 3)):

        def die(stage: str, done: int, total: int, when: int = when) -> None:
            if stage == "training" and done == when:
                os.kill(os.getpid(), signal.SIGKILL)

        killed(lambda: esd(model, job=replace(job, progress=die), **changes))
        with (tmp_path / "run" / LOG).open("a") as log:
            log.write('{"step": 9')  # a line that the kill cut short
    assert esd(model, job=job, **changes).hash() == expected
    assert steps_in(tmp_path / "run") == list(range(1, 10))
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_killed_while_writing_a_checkpoint_it_goes_on_from_the_last(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlearnkit.io import tensors

    whole, count = tensors.save_file, []

    def half(held: Any, path: Path, facts: Any) -> None:
        count.append(path)
        whole(held, path, facts)
        if len(count) == 2:
            path.write_bytes(path.read_bytes()[:200])
            os.kill(os.getpid(), signal.SIGKILL)

    job = Job(folder=tmp_path / "run", checkpoint_every=2)
    esd(model)  # fills the picture cache
    with monkeypatch.context() as patched:
        patched.setattr(tensors, "save_file", half)
        killed(lambda: esd(model, job=job))
    assert esd(model, job=job).hash() == esd(model).hash()


def test_a_finished_run_is_read_and_another_is_refused(model: Model, tmp_path: Path) -> None:
    job = Job(folder=tmp_path)
    first = esd(model, job=job)
    made = (tmp_path / "edit.safetensors").stat().st_mtime_ns
    assert esd(model, job=job).hash() == first.hash()
    assert (tmp_path / "edit.safetensors").stat().st_mtime_ns == made
    with pytest.raises(InputError, match="has the edit of another run"):
        esd(model, job=job, lr=1e-4)


def test_other_sentences_or_another_vocabulary_make_another_run(model: Model, tmp_path: Path) -> None:
    """Else a killed run would go on with other pictures than it began with."""
    grammar = tmp_path / "own.toml"
    grammar.write_text('[templates]\nobject = ["a red {concept}", "a blue {concept}"]\n')
    job, own = Job(folder=tmp_path / "run"), {"grammar": str(grammar), "trains": "xattn-kv"}
    edit_for(model, REQUEST, method="ca", settings=quick("ca") | own, job=job)
    other = model.with_hints(dataclasses.replace(model.hints, guidance=2.5))
    with pytest.raises(InputError, match="has the edit of another run"):
        edit_for(other, REQUEST, method="ca", settings=quick("ca") | own, job=job)
    grammar.write_text('[templates]\nobject = ["a red {concept}", "a green {concept}"]\n')
    with pytest.raises(InputError, match="has the edit of another run"):
        edit_for(model, REQUEST, method="ca", settings=quick("ca") | own, job=job)


def test_a_checkpoint_of_another_run_is_refused(model: Model, tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        esd(model, job=Job(folder=tmp_path, checkpoint_every=2, progress=interrupt))
    with pytest.raises(InputError, match="belongs to a run with other settings"):
        esd(model, job=Job(folder=tmp_path, checkpoint_every=2), lr=1e-4)
    (tmp_path / CHECKPOINT).write_bytes(b"garbage")
    with pytest.raises(InputError, match="is damaged"):
        esd(model, job=Job(folder=tmp_path))


def test_divergence_names_the_step_and_the_loss_and_leaves_the_model(model: Model) -> None:
    before, method = model.fingerprint(), resolve(model, REQUEST, "esd", FULL)
    with pytest.raises(
        DivergedError, match=r"at step 2 the loss 'erase' is (nan|inf): lower the learning rate"
    ):
        replace(method, lr=1e30).solve(Run(model, REQUEST, Net(model), 1))
    with pytest.raises(DivergedError, match="after step 1 a weight is not a finite number"):
        replace(method, lr=1e38, steps=1, eta=1e3).solve(Run(model, REQUEST, Net(model), 1))
    assert model.fingerprint() == before
    assert all(weight.requires_grad for weight in model.weights().values())


def test_float16_is_refused(make: Callable[..., Model]) -> None:
    with pytest.raises(ModelError, match="float16 loses small gradients"):
        esd(make(dtype=torch.float16), start="student")


def test_the_stages_are_combine_rules_mask_step_rules(model: Model) -> None:
    order: list[str] = []

    def combine(step: int, losses: Any, weights: Any) -> dict[str, Tensor]:
        order.append(f"combine {step}")
        return {name: torch.ones_like(weight) for name, weight in weights.items()}

    class Keys(Mask):
        def gated(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
            order.append("mask")
            return {name: value * ("to_k" in name) for name, value in gradients.items()}

    class Twice:
        def regularize_grad(self, weights: Any, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
            order.append("pull")
            return {name: 2 * value for name, value in gradients.items()}

        def project_weights(self, weights: Any) -> None:
            order.append("settle")

    before = {name: weight.detach().clone() for name, weight in model.weights("xattn-kv").items()}
    stages: dict[str, Any] = {"combine": combine, "mask": Keys(0.5, 1, 3), "rules": [Twice()]}
    after = descend(Net(model), "xattn-kv", toward_zero(model), steps=2, lr=0.1, job=Job(), **stages)
    assert order == [part for step in (1, 2) for part in (f"combine {step}", "pull", "mask", "settle")]
    for name, value in after.items():  # Adam's first steps on a constant gradient are lr each
        moved = 0.2 if "to_k" in name else 0.0
        torch.testing.assert_close(before[name] - value, torch.full_like(value, moved))


def test_early_stop_keeps_the_best_and_resumes(model: Model, tmp_path: Path) -> None:
    scores = {2: 0.5, 4: 0.2, 6: 0.3, 8: 0.4}
    job = Job(stop=EarlyStopping(lambda model, step: scores[step], every=2, patience=2))
    stopped = esd(model, job=job, steps=100)
    assert stopped.hash() == esd(model, steps=4).hash()

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 7:
            raise KeyboardInterrupt

    job = replace(job, folder=tmp_path, checkpoint_every=3)
    with pytest.raises(KeyboardInterrupt):
        esd(model, job=replace(job, progress=interrupt), steps=100)
    assert esd(model, job=job, steps=100).hash() == stopped.hash()


def test_small_learning_rates_move_the_copies_of_a_bf16_model(make: Callable[..., Model]) -> None:
    model = make(dtype=torch.bfloat16)
    method = resolve(model, REQUEST, "esd", {"start_steps": 3, "lr": 1e-6, "steps": 2})
    for name, value in method.solve(Run(model, REQUEST, Net(model))).items():
        moved = value - model.weights()[name].detach().float()
        assert 0 < moved.abs().max() < 1e-5


def test_training_works_under_no_grad_and_restores_it(model: Model) -> None:
    with torch.no_grad():
        assert esd(model, steps=2).hash() == esd(model, steps=2).hash()
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_while_a_critic_warms_up_the_weights_rest(model: Model, tmp_path: Path) -> None:
    """Weights, Adam and schedule are those of a run without the rest, and a kill in between changes nothing."""
    base, late, seen = toward_zero(model), toward_zero(model, late=3), list[tuple[int, bool]]()

    def loss(net: Net, step: Step) -> Losses:
        with net.as_student():
            weights = model.weights("xattn").items()
            seen.append((step.number, all(torch.equal(weight, start[name]) for name, weight in weights)))
        return late.loss(net, step) if step.number >= 3 else {}

    start = {name: weight.detach().clone() for name, weight in model.weights("xattn").items()}
    resting = Objective(loss, critic_warmup=3)
    plain = descend(Net(model), "xattn", base, steps=4, lr=1e-3, job=Job(), schedule=onecycle)
    for when in (2, 5):

        def interrupt(stage: str, done: int, total: int, when: int = when) -> None:
            assert (stage, total) == ("warm-up" if done <= 3 else "training", 7)
            if done == when:
                raise KeyboardInterrupt

        job = Job(folder=tmp_path / str(when), checkpoint_every=1)
        settings: dict[str, Any] = {"steps": 4, "lr": 1e-3, "schedule": onecycle}
        with pytest.raises(KeyboardInterrupt):
            descend(Net(model), "xattn", resting, job=replace(job, progress=interrupt), **settings)
        found = descend(Net(model), "xattn", resting, job=job, **settings)
        assert all(torch.equal(value, plain[name]) for name, value in found.items())
        assert steps_in(tmp_path / str(when)) == list(range(1, 8))
    assert {step for step, untouched in seen if untouched} == {0, 1, 2, 3}
