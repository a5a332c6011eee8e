"""Adam as a run's state: whatever the layout in memory, and saved and taken up."""

from __future__ import annotations

import torch

from unlearnkit.training.adam import Adam


def test_a_gradient_may_lie_otherwise_in_memory() -> None:
    start, gradient, last = torch.randn(4, 3, 3, 3), torch.randn(4, 3, 3, 3), torch.channels_last
    found = []
    for turned in (gradient, gradient.to(memory_format=last)):
        for master in (start.clone(), start.clone(memory_format=last)):
            optimiser = Adam({"w": master})
            optimiser.step({"w": turned}, lr=0.1, beta=0.9)
            again = Adam({"w": master})
            held = {key.removesuffix("/w"): {"w": value} for key, value in optimiser.tensors().items()}
            again.restore({what: {"w": one["w"].contiguous()} for what, one in held.items()}, 1)
            again.step({"w": turned}, lr=0.1, beta=0.9)
            found.append(master)
    for one in found[1:]:
        torch.testing.assert_close(one, found[0])


def test_a_closed_entry_stays_bit_for_bit() -> None:
    master = torch.randn(30, 20).requires_grad_()
    optimiser, opened = Adam({"w": master}), torch.rand(30, 20) > 0.5
    optimiser.step({"w": torch.randn(30, 20)}, lr=1e-2, beta=0.9)
    before = master.detach().clone()
    optimiser.forget({"w": opened})
    optimiser.step({"w": torch.randn(30, 20) * opened}, lr=1e-2, beta=0.9)
    assert torch.equal(master[~opened], before[~opened])
    assert (master[opened] != before[opened]).all()
