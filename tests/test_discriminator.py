"""The discriminators: the published sizes, losses worked out by hand, and no gradient that strays."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.errors import DivergedError, ModelError
from unlearnkit.parts.discriminator import Discriminator

SHAPE = (4, 16, 16)


def samples(seed: int, shape: tuple[int, int, int] = SHAPE, n: int = 3) -> Tensor:
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed))


def test_the_published_patchgan_has_2767553_weights_and_gives_3x3_logits_of_64x64() -> None:
    found = Discriminator((4, 64, 64))
    assert sum(weight.numel() for weight in found.weights.values()) == 2_767_553
    assert found.logits(samples(0, (4, 64, 64), 1)).shape == (1, 1, 3, 3)


def test_the_published_patchgan_is_that_of_torch_layers() -> None:
    """The layers as the notes on the released code list them, with the same weights."""
    found = Discriminator((4, 64, 64), seed=3)
    layers: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(((4, 64), (64, 128), (128, 256), (256, 512))):
        layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1))
        layers += [nn.BatchNorm2d(outputs)] if place else []
        layers.append(nn.LeakyReLU(0.2))
    network = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1)).train()
    with torch.no_grad():
        for mine, theirs in zip(found.weights.values(), network.parameters(), strict=True):
            theirs.copy_(mine)
    x = samples(1, (4, 64, 64), 2)
    torch.testing.assert_close(found.logits(x), network(x))


@pytest.mark.parametrize("side", [4, 8, 12, 16, 32, 96])
def test_other_sizes_leave_patches(side: int) -> None:
    found = Discriminator((4, side, side))
    assert found.logits(samples(0, (4, side, side))).numel() >= 3


def test_too_small_latents_are_refused() -> None:
    with pytest.raises(ModelError, match="latents of 2x8 are too small"):
        Discriminator((4, 2, 8))


def test_its_loss_by_hand_and_what_it_learns() -> None:
    found = Discriminator(SHAPE, lr=1e-3)
    anchor, target = samples(1), samples(2) + 1
    zero, one = (found.logits(x).sigmoid() for x in (anchor, target))
    expected = -(1 - zero).log().mean() - one.log().mean()
    assert found.learn(anchor, target)[0] == pytest.approx(expected.item(), rel=1e-5)
    for _ in range(30):
        loss, right = found.learn(anchor, target)
    assert loss < expected / 2
    assert right == 1.0


def test_the_leak_is_the_students_loss() -> None:
    plain, leaking = Discriminator(SHAPE), Discriminator(SHAPE)
    anchor, target = samples(1), samples(2)
    students = F.softplus(plain.logits(target)).mean().item()
    without = plain.learn(anchor, target)[0]
    assert leaking.learn(anchor, target, leak=True)[0] == pytest.approx(without + students, rel=1e-6)


def test_gradients_reach_only_the_samples() -> None:
    found = Discriminator(SHAPE)
    x = samples(0).requires_grad_()
    F.softplus(found.logits(x)).mean().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in found.weights.values())


def test_its_step_does_not_depend_on_a_students_step_before_it() -> None:
    after = []
    for student in (False, True):
        found = Discriminator(SHAPE)
        x = samples(2).requires_grad_()
        if student:
            F.softplus(found.logits(x)).mean().backward()
        found.learn(samples(1), x)
        after.append(found.tensors())
        assert (x.grad is None) != student  # learning added nothing
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])


def test_restored_it_goes_on_to_the_same_bits() -> None:
    first, second = (Discriminator(SHAPE, seed=seed) for seed in (0, 1))
    for _ in range(3):
        first.learn(samples(1), samples(2))
    second.restore({name: tensor.detach().clone() for name, tensor in first.tensors().items()})
    for one in (first, second):
        one.learn(samples(3), samples(4))
    assert all(torch.equal(tensor, second.tensors()[name]) for name, tensor in first.tensors().items())


def test_it_uses_no_global_randomness() -> None:
    before = torch.get_rng_state()
    first, again, other = (Discriminator(SHAPE, seed=seed).weights for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first["conv0.weight"], again["conv0.weight"])
    assert not torch.equal(first["conv0.weight"], other["conv0.weight"])


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DivergedError, match="the discriminator's loss is nan: lower"):
        Discriminator(SHAPE).learn(samples(1) * torch.nan, samples(2))
