"""The parts by themselves: gradients, masks, rules and low-rank updates against numbers worked out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unlearnkit import seeds
from unlearnkit.data.image_sets import DenoiserInput
from unlearnkit.errors import InputError
from unlearnkit.methods import METHODS, edit_for, plan
from unlearnkit.model.model import Model
from unlearnkit.parts import Combine, Losses, lora
from unlearnkit.parts.combine import pcgrad, preserving, restricted, summed
from unlearnkit.parts.mask import Mask, swapped, top
from unlearnkit.parts.rules import Projection, StartPenalty, residual_share, span_basis
from unlearnkit.schema import Concept, Request
from unlearnkit.settings import build, describe
from unlearnkit.training.checks import check
from unlearnkit.training.descend import Objective, descend, onecycle
from unlearnkit.training.job import Job
from unlearnkit.training.net import Net, Step
from unlearnkit.training.settings import Training

SIZES = {"a": (2,), "b": (3, 1)}
numbers = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x)
vectors = st.lists(numbers, min_size=5, max_size=5)
few = settings(max_examples=60, deadline=None)


def combined(combine: Combine, *gradients: list[float], names: str = "erase retain third") -> Tensor:
    """The gradient, flat, for losses that are linear in the weights and so have just these gradients."""
    weights = {
        name: torch.zeros(size, dtype=torch.float64, requires_grad=True) for name, size in SIZES.items()
    }
    flat = torch.cat([weight.flatten() for weight in weights.values()])
    losses = {
        name: flat @ torch.tensor(gradient, dtype=torch.float64)
        for name, gradient in zip(names.split(), gradients, strict=False)
    }
    found = combine(7, losses, weights)
    assert {name: tuple(value.shape) for name, value in found.items()} == SIZES
    return torch.cat([value.flatten() for value in found.values()])


def vector(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# combine


def test_restricted_by_hand() -> None:
    # s = -0.5, |g_f|² = 1, |g_r|² = 1.25: (1 + 0.5) g_f + (1 + 0.4) g_r
    found = combined(restricted, [1, 0, 0, 0, 0], [-0.5, 0, 1, 0, 0])
    torch.testing.assert_close(found, vector([0.8, 0, 1.4, 0, 0]))


@few
@given(vectors, vectors, st.floats(0.1, 10))
def test_restricted_lets_neither_side_rise(f: list[float], r: list[float], weight: float) -> None:
    """And it is the paper's δ_f + λ δ_r, projected with flat vectors."""
    g_f, g_r = vector(f), vector(r)
    u = combined(restricted, f, [weight * x for x in r])
    size = 1e-9 * (1 + g_f.norm() + weight * g_r.norm()) ** 2
    assert u @ g_f >= -size
    assert u @ g_r >= -size
    s = g_f @ g_r
    if s >= 0 or not g_f.any() or not g_r.any():
        assert torch.equal(u, g_f + vector([weight * x for x in r]))
    else:
        delta_f, delta_r = g_f - s / (g_r @ g_r) * g_r, g_r - s / (g_f @ g_f) * g_f
        torch.testing.assert_close(u, delta_f + weight * delta_r, rtol=1e-7, atol=1e-9 * size.item() + 1e-9)


@few
@given(vectors, vectors, st.booleans())
def test_preserving_is_orthogonal_where_there_is_conflict_and_untouched_elsewhere(
    u: list[float], r: list[float], per_tensor: bool
) -> None:
    found = combined(preserving(per_tensor=per_tensor), u, r)
    for at in (slice(0, 2), slice(2, 5)) if per_tensor else (slice(0, 5),):
        g_u, g_r, new = vector(u)[at], vector(r)[at], found[at]
        if g_u @ g_r < 0:
            assert abs(new @ g_r) <= 1e-12 * (1 + g_u.norm() * g_r.norm())
            torch.testing.assert_close(new, g_u - (g_u @ g_r) / (g_r @ g_r) * g_r)
        else:
            assert torch.equal(new, g_u)


def test_preserving_adds_the_keeping_gradient_if_told() -> None:
    # s = -1, |g_r|² = 2: g_u + 0.5 g_r, and a tenth of g_r more
    found = combined(preserving(per_tensor=False, adds=0.1), [1, 0, 0, 0, 0], [-1, 1, 0, 0, 0])
    torch.testing.assert_close(found, vector([0.4, 0.6, 0, 0, 0]))


@few
@given(vectors, vectors, vectors)
def test_pcgrad_is_its_algorithm(a: list[float], b: list[float], c: list[float]) -> None:
    raw, draws = [vector(a), vector(b), vector(c)], seeds.stream(3, "pcgrad", 7)
    total = torch.zeros(5, dtype=torch.float64)
    for i, gradient in enumerate(raw):
        mine = gradient.clone()
        for j in torch.randperm(3, generator=draws).tolist():
            s = mine @ raw[j]
            if j != i and s < -1e-9 and raw[j].any():
                mine -= s / (raw[j] @ raw[j]) * raw[j]
        total += mine
    found = combined(pcgrad(3), a, b, c)
    torch.testing.assert_close(found, total, rtol=1e-5, atol=1e-5)


def test_pcgrad_of_two_is_the_restricted_gradient() -> None:
    g_f, g_r = [1.0, 2, -3, 0.5, 1], [-2.0, 1, 1, -1, 0]
    torch.testing.assert_close(combined(pcgrad(0), g_f, g_r), combined(restricted, g_f, g_r))


def test_sides_are_told_by_name_and_one_side_alone_is_refused() -> None:
    names = "erase align distil"
    g = [[1.0, 0, 0, 0, 0], [-1.0, 1, 0, 0, 0], [0.0, 0, 1, 0, 0]]
    torch.testing.assert_close(
        combined(restricted, *g, names=names), combined(restricted, g[0], [-1.0, 1, 1, 0, 0])
    )
    torch.testing.assert_close(combined(summed, *g, names=names), vector([0, 1, 1, 0, 0]))
    with pytest.raises(InputError, match=r"the only losses are retain: .*choose combine=sum"):
        combined(restricted, g[0], names="retain")


def test_one_small_step_of_the_restricted_gradient_raises_the_error_and_lowers_the_rest(model: Model) -> None:
    """On a real network and real losses, in plain gradient descent."""
    draws = torch.Generator().manual_seed(0)
    x, noise = torch.randn((2, 4, *model.shape), generator=draws)
    t, states = (
        torch.tensor([100, 300, 500, 700]),
        {word: model.encode([word] * 4) for word in ("cat", "dog")},
    )
    weights = {
        name: weight.detach().clone().requires_grad_() for name, weight in model.weights("all").items()
    }

    def losses() -> dict[str, Tensor]:
        with model.wearing(weights):
            cat, dog = (model.eps(x, t, states[word]) for word in ("cat", "dog"))
            return {"erase": -(cat - noise).square().mean(), "retain": (dog - noise).square().mean()}

    with model.frozen():
        before = losses()
        step = restricted(0, before, weights)
        with torch.no_grad():
            for name, weight in weights.items():
                weight -= 1e-3 * step[name]
        after = losses()
    assert after["retain"] < before["retain"]
    assert after["erase"] < before["erase"]


# masks


@few
@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.data())
def test_density_is_exact_and_constant_whatever_the_ties(scores: list[int], data: st.DataObject) -> None:
    values = torch.tensor(scores, dtype=torch.float32)
    count = data.draw(st.integers(1, len(scores)))
    opened = top(values, count)
    assert int(opened.sum()) == count
    again = swapped(
        opened, torch.rand(len(scores), generator=torch.Generator().manual_seed(0)), 1 + count // 2
    )
    assert int(again.sum()) == count


def test_a_swap_by_hand() -> None:
    opened = torch.tensor([True, True, True, False, False, False])
    scores = torch.tensor([5.0, 1.0, 2.0, 9.0, 0.0, 3.0])
    assert swapped(opened, scores, 1).tolist() == [True, False, True, True, False, False]
    assert swapped(opened, scores, 2).tolist() == [True, False, False, True, False, True]
    full = torch.ones(3, dtype=torch.bool)
    assert swapped(full, torch.rand(3), 2).tolist() == [True] * 3


def test_saliency_is_the_largest_summed_gradient_of_all_weights_together() -> None:
    mask = Mask(0.5, warmup=2, steps=10, per_matrix=False)
    mask.accumulate(0, {"a": torch.tensor([1.0, -5.0]), "b": torch.tensor([[3.0, 0.5]])})
    assert not mask.choose(0)
    mask.accumulate(1, {"a": torch.tensor([1.0, 4.9]), "b": torch.tensor([[3.0, 1.0]])})
    assert mask.choose(1)  # sums 2, -0.1 and 6, 1.5
    assert {name: opened.tolist() for name, opened in mask.opened.items()} == {
        "a": [True, False],
        "b": [[True, False]],
    }
    gated = mask.gated({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0, 4.0]])})
    assert {name: value.tolist() for name, value in gated.items()} == {"a": [1.0, 0.0], "b": [[3.0, 0.0]]}


def test_selft_weighs_gradients_by_the_weights_that_they_belong_to() -> None:
    # |A θ| = 1, 2 | 3, 0.5: the two largest of four are not those of |A| = 1, 4 | 1, 5
    scale = {"a": torch.tensor([1.0, -0.5]), "b": torch.tensor([3.0, 0.1])}
    mask = Mask(share=0.5, warmup=1, steps=2, per_matrix=False, scale=scale)
    mask.accumulate(0, {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([-1.0, 5.0])})
    assert mask.choose(0)
    assert mask.opened["a"].tolist() == [False, True]
    assert mask.opened["b"].tolist() == [True, False]


def test_a_dynamic_mask_ranks_every_matrix_by_itself_and_gathers_closed_entries_too() -> None:
    mask = Mask(0.5, warmup=1, steps=10, every=3, swap=0.9, swap_span=1.0)
    mask.accumulate(0, {"w": torch.tensor([[4.0, 3.0, 1.0, 2.0]]), "bias": torch.tensor([1.0])})
    mask.choose(0)
    assert mask.opened["w"].tolist() == [[True, True, False, False]]
    assert "bias" not in mask.opened
    for step, g in ((1, [[1.0, -2.0, 7.0, 0.0]]), (2, [[-0.5, -2.0, -1.0, 0.0]])):
        mask.accumulate(step, {"w": torch.tensor(g), "bias": torch.tensor([1.0])})
        assert mask.choose(step) == (step == 2)
    assert mask.opened["w"].tolist() == [[False, True, True, False]]  # sums 0.5, -4, 6, 0
    assert mask.sums == {}


def test_the_schedule_is_that_of_the_released_code() -> None:
    mask = Mask(0.5, warmup=50, steps=500, every=100)
    chosen = []
    for step in range(500):
        mask.accumulate(step, {"w": torch.rand((4, 5), generator=torch.Generator().manual_seed(step))})
        if mask.choose(step):
            chosen.append(step + 1)
            assert mask.opened["w"].sum() == 10
    assert chosen == [50, 100, 200, 300, 400]
    shares = [mask._swap(step - 1) for step in chosen[1:]]
    assert shares == pytest.approx([0.1809, 0.1309, 0.0691, 0.0191], abs=1e-4)


def toward(model: Model, *, look: Callable[[int, Net], None] = lambda step, net: None) -> Objective:
    """Predict no noise for "cat", and for "dog" neither."""
    cond, t = model.encode(["cat", "dog"]), torch.tensor([500, 100])

    def loss(net: Net, step: Step) -> Losses:
        look(step.number, net)
        x = torch.randn((2, *model.shape), generator=seeds.stream(0, "test", step.number))
        (eps,) = net.student([DenoiserInput(x, t, cond)])
        cat, dog = eps.square().mean(dim=(1, 2, 3))
        return {"erase": cat, "retain": dog}

    return Objective(loss, saliency=lambda net, step: {"erase": loss(net, step)["erase"]})


def copies(model: Model, part: str = "xattn") -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.weights(part).items()}


def test_closed_entries_do_not_move_over_several_choices(model: Model) -> None:
    mask = Mask(0.4, warmup=2, steps=20, every=3, swap=0.5, swap_span=1.0)
    seen: list[dict[str, Tensor]] = []
    closed: list[dict[str, Tensor]] = []

    def look(step: int, net: Net) -> None:
        with net.as_student():
            seen.append(copies(model))
        closed.append({name: ~opened for name, opened in mask.opened.items()})
        assert base.items() >= {}.items()
        assert all(torch.equal(weight, base[name]) for name, weight in model.weights("xattn").items())

    base = copies(model)
    descend(Net(model), "xattn", toward(model, look=look), steps=18, lr=1e-2, job=Job(), mask=mask)
    for step in (0, 1, 2):  # the warm-up leaves every weight as it is, bit for bit
        assert all(torch.equal(weight, base[name]) for name, weight in seen[step].items())
    assert (
        sum(
            not torch.equal(
                a["unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"],
                b["unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"],
            )
            for a, b in itertools.pairwise(closed[2:])
        )
        >= 2
    )
    strayed = [
        (name, step)
        for step in range(2, 19)
        for name, shut in closed[step].items()
        if not torch.equal(seen[step][name][shut], seen[step + 1][name][shut])
    ]
    assert not strayed  # nor does momentum move what was closed
    assert any(not torch.equal(seen[-1][name], base[name]) for name in base)


@pytest.mark.parametrize("when", [1, 3, 6])
def test_killed_under_a_dynamic_mask_it_goes_on_to_the_same_bits(
    when: int, model: Model, tmp_path: Path
) -> None:
    def go(job: Job) -> dict[str, Tensor]:
        mask = Mask(0.4, warmup=2, steps=9, every=2, swap=0.5, swap_span=1.0)
        start = model.weights("xattn")
        rules = [StartPenalty(start, 10.0, 1), StartPenalty(start, 100.0, 2)]
        stages: dict[str, Any] = {"mask": mask, "rules": rules, "combine": pcgrad(1), "schedule": onecycle}
        return descend(Net(model), "xattn", toward(model), steps=7, lr=1e-2, job=job, **stages)

    def die(stage: str, done: int, total: int) -> None:
        if done == when:
            raise KeyboardInterrupt

    job = Job(folder=tmp_path, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        go(replace(job, progress=die))
    plain = go(Job())
    assert all(torch.equal(weight, plain[name]) for name, weight in go(job).items())


# rules


def test_pulls_by_hand() -> None:
    start = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.0, 4.0]])}
    weights = {"a": torch.tensor([3.0, 2.0]), "b": torch.tensor([[-1.0, 4.5]])}
    zeros = {name: torch.zeros_like(weight) for name, weight in start.items()}
    for power, weight, expected in ((1, 8.0, [2.0, 0.0, -2.0, 2.0]), (2, 8.0, [8.0, 0.0, -4.0, 2.0])):
        found = StartPenalty(start, weight, power).regularize_grad(
            weights, {name: value.clone() for name, value in zeros.items()}
        )
        assert torch.cat([found["a"], found["b"].flatten()]).tolist() == expected
        ways = {name: value.clone().requires_grad_() for name, value in weights.items()}
        penalty = weight * torch.cat([(ways[n] - start[n]).abs().flatten() ** power for n in start]).mean()
        for gradient, name in zip(torch.autograd.grad(penalty, list(ways.values())), ways, strict=True):
            torch.testing.assert_close(gradient, found[name])


@few
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_projected_updates_are_orthogonal_to_every_protected_text(seed: int, count: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    states = torch.randn((count, 6), generator=draws, dtype=torch.float64)
    start = torch.randn((4, 6), generator=draws, dtype=torch.float64)
    basis = span_basis(states)
    torch.testing.assert_close(basis.T @ basis, torch.eye(count, dtype=torch.float64))
    rule, weights = (
        Projection({"k": start}, {"k": basis}),
        {"k": start + torch.randn((4, 6), generator=draws).double()},
    )
    gradient = rule.regularize_grad(weights, {"k": torch.randn((4, 6), generator=draws).double()})["k"]
    rule.project_weights(weights)
    for way in (gradient, weights["k"] - start):
        assert (way @ states.T).abs().max() < 1e-12 * (1 + states.abs().max()) * 100
    assert not torch.equal(weights["k"], start)
    across = torch.randn(6, generator=draws, dtype=torch.float64)
    across -= basis @ (basis.T @ across)
    assert (gradient @ across).abs().max() > 0


def test_a_pull_takes_gradients_that_are_parts_of_one_vector(model: Model) -> None:
    settings = {"steps": 1, "batch": 1, "start_steps": 2, "retain_weight": 1.0, "retain_pictures": 1}
    settings |= {"combine": "restricted", "rule": ("l1sp", "l2sp")}
    assert edit_for(model, Request((Concept("cat"),)), method="esd", settings=settings).weights


def test_how_far_a_text_lies_outside_the_span_by_hand() -> None:
    # U = e1: (3, 4) keeps 4 of its length 5, (2, 0) nothing, (0, 7) everything
    basis = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    assert residual_share(torch.tensor([[3.0, 4.0], [2.0, 0.0], [0.0, 7.0]]), basis).tolist() == [
        0.8,
        0.0,
        1.0,
    ]


def test_texts_that_span_everything_are_refused() -> None:
    with pytest.raises(InputError, match="span all 3 directions, so no weight could change: lower protect"):
        span_basis(torch.eye(3))
    assert span_basis(torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0]])).shape == (3, 2)


def test_protected_words_keep_their_keys_and_values_through_adam(model: Model) -> None:
    changes = {"trains": "xattn-kv", "rule": ("project",), "steps": 5, "lr": 1e-2, "start_steps": 2}
    edit = edit_for(model, Request((Concept("cat"),), (Concept("dog"),)), method="esd", settings=changes)
    protected, other = model.encode(["dog", "cat"])[torch.arange(2), 1]
    for name, new in edit.weights.items():
        change = new - model.weights()[name].detach()
        assert (change @ protected).abs().max() < 1e-5 < (change @ other).abs().max()


# low-rank updates


def test_lora_is_that_of_peft(model: Model) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(5, 3))
    start = {"0.weight": layer[0].weight.detach().clone()}
    pairs = lora.init(start, 2, seed=1)
    pairs["0.weight.B"] = torch.randn(3, 2)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["0"])
    adapted = peft.inject_adapter_in_model(config, layer)
    adapted[0].lora_A["default"].weight.data = pairs["0.weight.A"]
    adapted[0].lora_B["default"].weight.data = pairs["0.weight.B"]
    x = torch.randn(4, 5)
    with torch.no_grad():
        expected = adapted(x) - adapted[0].base_layer.bias
    torch.testing.assert_close(x @ dict(lora.merged(start, pairs))["0.weight"].T, expected)
    wide = lora.init({"w": torch.zeros(2, 400)}, 8, seed=0)["w.A"]
    assert 0.045 < wide.abs().max() <= 400**-0.5


def test_a_low_rank_edit_is_low_rank(model: Model) -> None:
    changes = {"trains": "lora", "rank": 2, "steps": 3, "lr": 1e-2, "start_steps": 2}
    edit = edit_for(model, Request((Concept("cat"),)), method="esd", settings=changes)
    assert edit.weights.keys() == lora.matrices(model.weights("xattn")).keys()
    for name, new in edit.weights.items():
        assert 1 <= torch.linalg.matrix_rank(new - model.weights()[name].detach(), rtol=1e-4) <= 2


# the schedule, the settings


def test_onecycle_is_torchs() -> None:
    steps, weight = 401, nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1.0, total_steps=steps)
    for step in range(steps):
        group = optimiser.param_groups[0]
        assert onecycle(step / (steps - 1)) == pytest.approx((group["lr"], group["betas"][0]), abs=0.02)
        optimiser.step()
        if step + 1 < steps:
            schedule.step()


REFUSED: list[tuple[Mapping[str, Any], tuple[str, ...], str]] = [
    ({"combine": "restricted"}, ("erase",), "combine=restricted needs an erasing and a retain loss"),
    ({"combine": "pcgrad"}, ("retain",), "gives only retain"),
    ({"adds": 0.5}, ("erase", "retain"), "adds belongs to combine=preserving"),
    ({"mask": "saliency"}, ("retain",), "mask=saliency ranks weights by an erasing loss"),
    ({"mask": "saliency", "trains": "lora"}, ("erase",), "mask=saliency selects single weights"),
    ({"rule": ("l2sp",), "trains": "lora"}, ("erase",), "rule=l2sp constrains the weights themselves"),
    ({"rule": ("project",), "mask": "dynamic"}, ("erase",), "rule=project changes whole rows"),
    ({"rule": ("project",), "trains": "not-xattn"}, ("erase",), "rule=project constrains keys and values"),
]


@pytest.mark.parametrize(("given", "losses", "says"), REFUSED)
def test_impossible_combinations_are_refused_with_the_reason(
    given: Mapping[str, Any], losses: tuple[str, ...], says: str
) -> None:
    with pytest.raises(InputError, match=says) as told:
        check(build(Training, given), losses=losses)
    assert "\n" not in str(told.value)
    assert "choose" in str(told.value) or "leave" in str(told.value)


TRAINING = [name for name, method in METHODS.items() if issubclass(method, Training)]


@pytest.mark.parametrize("method", [name for name in TRAINING if not METHODS[name].ENCODES])  # type: ignore[attr-defined]
def test_a_method_refuses_them_in_its_plan_too(method: str, model: Model) -> None:
    request = Request((Concept("cat"),), (Concept("dog"),))
    with pytest.raises(InputError, match="rule=l1sp constrains the weights"):
        plan(model, request, method=method, settings={"trains": "lora", "rule": ("l1sp",), "mask": "none"})


@pytest.mark.parametrize("method", TRAINING)
def test_every_setting_says_where_it_comes_from(method: str) -> None:
    for one in describe(METHODS[method]):
        assert one.doc
        assert one.source, f"{method}: {one.name}"
