"""CASteer baked into the weights: by hand, and by a plain loop over the pipeline's own network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearnkit import seeds
from unlearnkit.errors import InputError
from unlearnkit.methods import CASteer, edit_for, plan
from unlearnkit.methods.casteer import directions, project_out
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Run
from unlearnkit.training.net import Net

CAT = Request((Concept("cat"),))
FEW = {"pictures": 2, "times": 2}


def columns(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_the_direction_is_removed_or_mirrored_by_hand() -> None:
    # s = (0.6, 0.8), W = I: I - s sᵀ = [[0.64, -0.48], [-0.48, 0.36]]
    w, s = torch.eye(2, dtype=torch.float64), columns([0.6], [0.8])
    torch.testing.assert_close(project_out(w, s, 1.0), columns([0.64, -0.48], [-0.48, 0.36]))
    torch.testing.assert_close(project_out(w, s, 2.0) @ s, -s)
    assert torch.equal(project_out(w, s, 0.0), w)


def test_of_several_directions_the_span_is_removed_by_hand() -> None:
    # (1, 0, 0), (1, 1, 0) and, again, (1, 0, 0) span the first two axes
    s = columns([1.0, 0.5**0.5, 1.0], [0.0, 0.5**0.5, 0.0], [0.0, 0.0, 0.0])
    found = project_out(torch.eye(3, dtype=torch.float64), s, 1.0)
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)))


def test_the_direction_is_that_of_a_plain_loop(model: Model) -> None:
    """By an independent route: attention by numpy from each layer's own inputs, with and without the word."""
    told, without = CASteer(pictures=2).pairs(Run(model, CAT, Net(model)), 0)
    found = directions(model, told, without, times=2, draws=seeds.stream(3))
    unet, kept = model.pipe.unet, np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    noise = torch.randn(told.latents.shape, generator=seeds.stream(3))
    means: list[dict[str, np.ndarray]] = []
    layers = {name: layer for name, layer in unet.named_modules() if name.endswith(".attn2")}
    inputs: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(
            lambda _, x, given, name=name: inputs.update({name: (x[0], given["encoder_hidden_states"])}),
            with_kwargs=True,
        )
    for one in (told, without):
        sums: dict[str, list[np.ndarray]] = {}
        for t in (250, 750):
            x = kept[t] ** 0.5 * one.latents + (1 - kept[t]) ** 0.5 * noise
            with torch.no_grad():
                unet(x.float(), t, encoder_hidden_states=one.cond[one.prompt_index])
            for name, layer in layers.items():
                sums.setdefault(name, []).append(_attended(layer, *inputs[name]))
        means.append({name: np.concatenate(rows).mean(axis=0) for name, rows in sums.items()})
    assert len(found) == len(means[0]) > 1
    for name, s in found.items():
        own = name.removeprefix("unet.").removesuffix(".to_out.0.weight")
        expected = means[0][own] - means[1][own]
        np.testing.assert_allclose(s.numpy(), expected / np.linalg.norm(expected), atol=1e-4)


def _attended(layer: torch.nn.Module, x: Tensor, states: Tensor) -> np.ndarray:
    """The outputs (rows · positions, width) of softmax(Q Kᵀ / √d) V and the last matrix, head by head."""
    weight = {name: one.detach().double().numpy() for name, one in layer.named_parameters()}
    x, states = x.double().numpy(), states.double().numpy()
    q, k, v = x @ weight["to_q.weight"].T, states @ weight["to_k.weight"].T, states @ weight["to_v.weight"].T
    parts = []
    for head in np.split(np.arange(q.shape[-1]), layer.heads):
        scores = q[..., head] @ k[..., head].transpose(0, 2, 1) / len(head) ** 0.5
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        parts.append(shares / shares.sum(axis=-1, keepdims=True) @ v[..., head])
    output = np.concatenate(parts, axis=-1) @ weight["to_out.0.weight"].T + weight["to_out.0.bias"]
    return output.reshape(-1, output.shape[-1])


def test_only_output_matrices_change_by_rank_one_and_lose_the_direction(model: Model) -> None:
    edit = edit_for(model, CAT, method="casteer", settings=FEW)
    before = model.weights("outputs")
    assert edit.weights.keys() == before.keys()
    for name, value in edit.weights.items():
        change = value.double() - before[name].double()
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == 1
        s = torch.linalg.svd(change).U[:, 0]
        torch.testing.assert_close(
            s @ value.double(), torch.zeros(value.shape[1]).double(), atol=1e-6, rtol=0
        )


def test_a_dry_run_counts_its_pictures_and_a_prompt_without_effect_is_refused(model: Model) -> None:
    assert plan(model, CAT, method="casteer", settings=FEW).sampled_images == 4
    told, _ = CASteer(pictures=2).pairs(Run(model, CAT, Net(model)), 0)
    with pytest.raises(InputError, match="moves no layer"):
        directions(model, told, told, times=1, draws=seeds.stream(3))
