"""Adam in 8 bits beside Adam itself."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import killed
from test_descend import esd
from torch import Tensor

from unlearnkit.model import Model
from unlearnkit.training.adam import Adam, Adam8, _levels
from unlearnkit.training.job import Job


def trained(kind: type, steps: int, *, lr: float = 3e-3) -> tuple[float, Tensor]:
    """A small regression after so many steps: its loss, and the weights."""
    draws = torch.Generator().manual_seed(0)
    x, truth = torch.randn(256, 40, generator=draws), torch.randn(40, 30, generator=draws)
    weight = torch.zeros(40, 30, requires_grad=True)
    optimiser = kind({"w": weight})
    for _ in range(steps):
        loss = (x @ (weight - truth)).square().mean()
        optimiser.step({"w": torch.autograd.grad(loss, weight)[0]}, lr=lr, beta=0.9)
    return loss.item(), weight.detach()


@pytest.mark.parametrize("signed", [True, False])
def test_a_code_has_256_levels_with_zero_and_one(signed: bool) -> None:
    levels = _levels(signed=signed)
    assert len(levels.unique()) == 256
    assert 0 in levels
    assert levels[-1] == 1
    assert (levels.min() < 0) == signed


def test_it_goes_where_adam_goes() -> None:
    for steps in (1, 20, 300):
        (loss, weight), (loss8, weight8) = trained(Adam, steps), trained(Adam8, steps)
        assert loss8 == pytest.approx(loss, rel=0.02)
        assert (weight8 - weight).norm() < 0.05 * weight.norm()
    assert loss < trained(Adam, 1)[0] / 2


@pytest.mark.parametrize("kind", [Adam, Adam8])
def test_a_gradient_may_lie_otherwise_in_memory(kind: type) -> None:
    start, gradient, last = torch.randn(4, 3, 3, 3), torch.randn(4, 3, 3, 3), torch.channels_last
    found = []
    for turned in (gradient, gradient.to(memory_format=last)):
        for master in (start.clone(), start.clone(memory_format=last)):
            optimiser = kind({"w": master})
            optimiser.step({"w": turned}, lr=0.1, beta=0.9)
            again = kind({"w": master})
            held = {key.removesuffix("/w"): {"w": value} for key, value in optimiser.tensors().items()}
            again.restore({what: {"w": one["w"].contiguous()} for what, one in held.items()}, 1)
            again.step({"w": turned}, lr=0.1, beta=0.9)
            found.append(master)
    for one in found[1:]:
        torch.testing.assert_close(one, found[0])


def test_two_bytes_a_number_and_no_giant_step_for_a_small_entry() -> None:
    gradient = torch.logspace(-12, 0, 4096).view(64, 64)
    master = torch.zeros(64, 64, requires_grad=True)
    optimiser = Adam8({"w": master})
    for step in range(1, 4):
        optimiser.step({"w": gradient}, lr=1.0, beta=0.9)
        assert master.abs().max() < 1.5 * step
    assert sum(held.nbytes for held in optimiser.tensors().values()) == 4096 * (2 + 8 / 256)


def test_a_closed_entry_stays_bit_for_bit() -> None:
    master = torch.randn(30, 20).requires_grad_()
    optimiser, opened = Adam8({"w": master}), torch.rand(30, 20) > 0.5
    optimiser.step({"w": torch.randn(30, 20)}, lr=1e-2, beta=0.9)
    before = master.detach().clone()
    optimiser.forget({"w": opened})
    optimiser.step({"w": torch.randn(30, 20) * opened}, lr=1e-2, beta=0.9)
    assert torch.equal(master[~opened], before[~opened])
    assert (master[opened] != before[opened]).all()


@pytest.mark.parametrize("trains", ["xattn", "lora"])
def test_killed_it_goes_on_to_the_same_bits(trains: str, model: Model, tmp_path: Path) -> None:
    changes = {"optimiser": "adam8", "trains": trains, "start_steps": 3}
    whole = esd(model, **changes).hash()
    assert whole != esd(model, **changes | {"optimiser": "adam"}).hash()

    def die(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    job = Job(folder=tmp_path / "run", checkpoint_every=2)
    killed(lambda: esd(model, job=replace(job, progress=die), **changes))
    assert esd(model, job=job, **changes).hash() == whole
