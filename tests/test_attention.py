"""Reading cross-attention: the same output as the stock processors, true maps, and nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor
from torch import Tensor

from unlearnkit.errors import ModelError
from unlearnkit.model.model import Model
from unlearnkit.training.attention import Attends, record_attention

NAMES = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2",
    "mid_block.attentions.0.transformer_blocks.0.attn2",
)
PROMPTS = ["cat", "a photo of a dog", ""]


def inputs(model: Model, prompts: list[str] = PROMPTS) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn((len(prompts), *model.shape), generator=torch.Generator().manual_seed(0))
    return x, torch.arange(len(prompts)) * 300 + 10, model.encode(prompts)


def processors(model: Model) -> list[Any]:
    return list(model.denoiser.attn_processors.values())


def by_hand(model: Model, name: str, given: tuple[Tensor, Tensor, Tensor], attends: str = "maps") -> Tensor:
    """One layer's probabilities, or what it reads from the values, head by head, from what its projections give."""
    layer, seen = model.denoiser.get_submodule(name), {}
    hooks = [
        getattr(layer, part).register_forward_hook(
            lambda _, __, out, part=part: seen.update({part: out.detach().double()})
        )
        for part in ("to_q", "to_k", "to_v")
    ]
    with torch.no_grad():
        model.eps(*given)
    for hook in hooks:
        hook.remove()
    width = seen["to_q"].shape[-1] // layer.heads
    found = []
    for head in range(layer.heads):
        q, k, v = (seen[part][..., head * width : (head + 1) * width] for part in ("to_q", "to_k", "to_v"))
        scores = torch.einsum("npd,ntd->npt", q, k) / math.sqrt(width)
        maps = scores.exp() / scores.exp().sum(-1, keepdim=True)
        found.append(maps if attends == "maps" else torch.einsum("npt,ntd->npd", maps, v))
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("rows", [3, 2, 0])
@pytest.mark.parametrize("stock", [None, AttnProcessor])
def test_the_output_is_the_stock_processors(rows: int, stock: Any, model: Model) -> None:
    if stock:
        model.denoiser.set_attn_processor(stock())
    x, t, states = inputs(model)
    with torch.no_grad(), record_attention(model) as recorder:
        before = model.eps(x, t, states)
        after, maps = recorder.eps(x, t, states, rows=rows)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert torch.equal(after[rows:], before[rows:]) or rows
    assert len(maps) == (len(NAMES) if rows else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maps_are_probabilities_in_fp32(dtype: torch.dtype, make: Callable[..., Model]) -> None:
    model = make(dtype=dtype)
    x, t, states = inputs(model)
    with torch.no_grad(), record_attention(model) as recorder:
        noise, maps = recorder.eps(x, t, states, rows=2)
        plain = model.eps(x, t, states)
    torch.testing.assert_close(noise, plain, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05)
    for one in maps:
        assert one.dtype == torch.float32
        assert one.shape[0] == 2
        assert one.shape[-1] == 12
        assert (one >= 0).all()
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))


@pytest.mark.parametrize("attends", ["maps", "output"])
def test_what_is_read_agrees_with_an_independent_route(attends: Attends, model: Model) -> None:
    given = inputs(model)
    with torch.no_grad(), record_attention(model, attends=attends) as recorder:
        found = recorder.eps(*given, rows=3)[1]
    passed = [name for block in ("down", "mid", "up") for name in NAMES if name.startswith(block)]
    for name, one in zip(passed, found, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), by_hand(model, name, given, attends), rtol=1e-4, atol=1e-6)


def test_the_processors_are_as_before_afterwards(model: Model) -> None:
    stock = model.denoiser.attn_processors
    with record_attention(model):
        recording = model.denoiser.attn_processors
        assert {name for name in stock if recording[name] is not stock[name]} == {
            f"{one}.processor" for one in NAMES
        }
    assert model.denoiser.attn_processors == stock
    with record_attention(model, enabled=False):
        assert model.denoiser.attn_processors == stock


def test_processors_are_restored_after_an_exception(model: Model) -> None:
    stock = processors(model)
    x, t, states = inputs(model)
    with pytest.raises(KeyboardInterrupt), record_attention(model) as recorder, torch.no_grad():
        recorder.eps(x, t, states, rows=3)
        raise KeyboardInterrupt
    with pytest.raises(ModelError), record_attention(model) as recorder, torch.no_grad():
        recorder.eps(x[:, :3], t, states, rows=3)
    assert all(now is then for now, then in zip(processors(model), stock, strict=True))


def test_nothing_is_kept_after_a_pass(model: Model) -> None:
    x, t, states = inputs(model)
    with torch.no_grad(), record_attention(model) as recorder:
        _, maps = recorder.eps(x, t, states, rows=3)
        assert recorder._maps is None
        model.eps(x, t, model.encode(PROMPTS))  # other states: nobody reads
        assert recorder._maps is None
        assert len(maps) == len(NAMES)


@pytest.mark.parametrize("separate", [False, True])
def test_gradients_are_the_same_with_recomputed_activations(separate: bool, model: Model) -> None:
    """Also when a pass that is not read comes between the read one and backward."""
    x, t, states = inputs(model)
    weights = list(model.weights("xattn").values())
    found = []
    for checkpointing in (False, True):
        with model.checkpointing(checkpointing), record_attention(model) as recorder:
            noise, maps = recorder.eps(x, t, states.clone(), rows=2)
            loss = torch.stack([one.square().mean() for one in maps]).sum() + noise.square().mean()
            if separate:
                loss = loss + model.eps(x, t, states).square().mean()
            found.append(torch.autograd.grad(loss, weights, allow_unused=True))
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_other_processors_are_refused(model: Model) -> None:
    model.denoiser.set_attn_processor(SlicedAttnProcessor(1))
    with (
        pytest.raises(ModelError, match="has the processor SlicedAttnProcessor"),
        record_attention(model),
    ):
        pass
