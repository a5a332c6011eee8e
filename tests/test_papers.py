"""Each method's equations against numbers worked out by hand or by another route."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_ca import KEPT, plain

from unlearnkit import seeds
from unlearnkit.data import grammar, pictures
from unlearnkit.data.text_columns import erased_matrices, retained_matrix
from unlearnkit.errors import InputError
from unlearnkit.methods import UCE, edit_for
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job

CAT = Request((Concept("cat"),))


# ESD: with null = 2 and told = 5 the concept is worth 3


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_esd_first_loss_is_that_of_a_plain_ddim_loop(
    prediction: str, make: Callable[..., Model], tmp_path: Path
) -> None:
    """At step 1 the trained network is the base, so the loss is (1 + η)² mean (ε_c - ε_0)² at the paper's x_t."""
    model, steps, guidance, eta = make(prediction=prediction), 6, 3.0, 1.5
    settings = {"steps": 1, "start_steps": steps, "eta": eta, "trains": "xattn"}
    edit_for(model, CAT, method="esd", settings=settings, seed=4, job=Job(folder=tmp_path))
    logged = json.loads((tmp_path / "log.jsonl").read_text())["erase"]

    draws = seeds.stream(4, "esd", 0)
    torch.randint(1, (1,), generator=draws)
    x = torch.randn((1, 4, 8, 8), generator=draws)
    stop = int(torch.randint(steps, (), generator=draws))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    times = [place * (1000 // steps) + 1 for place in reversed(range(steps))]
    both = torch.cat([model.pipe.encode_prompt(text, "cpu", 1, False)[0] for text in ("", "cat")])

    def noise(x: torch.Tensor, t: int) -> list[torch.Tensor]:
        with torch.no_grad():
            out = model.pipe.unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample
        if prediction == "v_prediction":
            out = kept[t] ** 0.5 * out + (1 - kept[t]) ** 0.5 * x
        return list(out.float().chunk(2))

    for t in times[:stop]:
        null, told = noise(x, t)
        e = null + guidance * (told - null)
        picture = (x - (1 - kept[t]) ** 0.5 * e) / kept[t] ** 0.5
        before = t - 1000 // steps
        share = kept[before] if before >= 0 else kept[0]
        x = (share**0.5 * picture + (1 - share) ** 0.5 * e).float()
    assert stop > 0
    null, told = noise(x, times[stop])
    assert logged == pytest.approx((1 + eta) ** 2 * (told - null).square().mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "instead", "nulls"),
    [
        ({}, None, ["", "", ""]),
        ({"null": "rest"}, None, ["", "a photo of a", "in a picture"]),
        ({}, "owl", ["owl", "owl", "owl"]),
        ({"null": "rest"}, "owl", ["owl", "a photo of an owl", "owl in a picture"]),
    ],
)
def test_esd_steers_away_from_what_stands_for_no_concept(
    changes: dict[str, str], instead: str | None, nulls: list[str], model: Model, tmp_path: Path
) -> None:
    told = ["cat", "a photo of a cat", "cat in a picture"]
    settings = {
        "steps": 1,
        "batch": 3,
        "pictures": 3,
        "start": "pictures",
        "templates": True,
        "trains": "xattn",
    }
    request = Request((Concept("cat", instead=instead),))
    edit_for(model, request, method="esd", settings=settings | changes, seed=2, job=Job(folder=tmp_path))
    draws = seeds.stream(2, "esd", 0)
    which = torch.randint(3, (3,), generator=draws)
    noise = torch.randn((3, *model.shape), generator=draws)
    t = torch.randint(1000, (3,), generator=draws)
    share = torch.tensor(KEPT)[t].view(-1, 1, 1, 1)
    x = (share**0.5 * pictures.draw(model, told)[which] + (1 - share) ** 0.5 * noise).float()
    way = plain(model, x, t, [told[i] for i in which]) - plain(model, x, t, [nulls[i] for i in which])
    logged = json.loads((tmp_path / "log.jsonl").read_text())["erase"]
    assert logged == pytest.approx(2**2 * way.square().mean().item(), rel=1e-4)  # η is 1


def test_esd_parts_are_the_papers(model: Model) -> None:
    names = {part: set(model.weights(part)) for part in ("xattn", "not-xattn", "xattn-kv", "all")}
    assert all("attn2" in name for name in names["xattn"])
    assert not any("attn2" in name for name in names["not-xattn"])
    assert names["xattn"] | names["not-xattn"] == names["all"]
    assert names["xattn-kv"] < names["xattn"]
    assert {name.split(".")[-2] for name in names["xattn-kv"]} == {"to_k", "to_v"}


# UCE


def closed(
    w: list[list[float]], c: list[float], g: list[float], k: list[float] | None, **scales: float
) -> np.ndarray:
    method = UCE(**scales)
    column = {
        name: torch.tensor([[x] for x in v or []], dtype=torch.float64).view(2, -1)
        for name, v in {"c": c, "g": g, "k": k}.items()
    }
    own, target, other = (column[name] for name in "cgk")
    sums = (own @ own.T, (target - own) @ own.T, other @ other.T)
    old = torch.tensor(w, dtype=torch.float64)
    new = old + old @ method.delta(*sums)
    return new.numpy()


def test_uce_by_hand() -> None:
    # W = I, c = (1, 0), v* = g = (0, 1), λ = 1: (I + g cᵀ) diag(2, 1)⁻¹
    found = closed([[1, 0], [0, 1]], [1, 0], [0, 1], None, ridge=1.0)
    np.testing.assert_allclose(found, [[0.5, 0], [0.5, 1]])
    # keeping g changes nothing, because W' g = g already
    found = closed([[1, 0], [0, 1]], [1, 0], [0, 1], [0, 1], ridge=1.0, retain_weight=3.0)
    np.testing.assert_allclose(found, [[0.5, 0], [0.5, 1]])
    # W = (1 2; 3 4), c = (1, 1), g = (1, 0): (2 3; 6 7) times (2 -1; -1 2) / 3
    found = closed([[1, 2], [3, 4]], [1, 1], [1, 0], None, ridge=1.0)
    np.testing.assert_allclose(found, np.array([[1, 4], [5, 8]]) / 3)
    # the same with s_e = 2: A = (3 2; 2 3), numerator (1+2 2+2; 3+6 4+6)
    found = closed([[1, 2], [3, 4]], [1, 1], [1, 0], None, ridge=1.0, erase_weight=2.0)
    np.testing.assert_allclose(found, np.array([[3, 4], [9, 10]]) @ np.array([[3, -2], [-2, 3]]) / 5)


@pytest.mark.parametrize("tokens", ["last", "all"])
@pytest.mark.parametrize("instead", [None, "dog"])
def test_uce_is_the_least_squares_solution(tokens: str, instead: str | None, model: Model) -> None:
    """numpy.linalg.lstsq on the stacked rows of the objective itself, states straight from the text encoder."""
    s_e, s_k, ridge = 2.0, 0.7, 0.3
    request = Request(
        (Concept("cat", instead=instead),), keep=(Concept("car"), Concept("van gogh", kind="style"))
    )
    settings = {"erase_weight": s_e, "retain_weight": s_k, "ridge": ridge, "tokens": tokens}
    edit = edit_for(model, request, method="uce", settings=settings)

    def states(text: str) -> tuple[np.ndarray, int]:
        told = model.pipe.tokenizer(text, padding="max_length", max_length=12, return_tensors="pt")
        with torch.no_grad():
            hidden = model.pipe.text_encoder(told.input_ids)[0]
        return hidden[0].double().numpy(), int(told.attention_mask.sum()) - 2

    (c, at), (g, other) = states("cat"), states(instead or "")
    length = 1 if tokens == "last" else 12 - max(at, other)
    c, g = c[at : at + length], g[other : other + length]
    k = np.concatenate(
        [h[end : end + 1] if tokens == "last" else h for h, end in map(states, ("car", "van gogh"))]
    )
    for name, new in edit.weights.items():
        w = model.weights()[name].detach().double().numpy()
        rows = np.concatenate([s_e**0.5 * c, s_k**0.5 * k, ridge**0.5 * np.eye(16)])
        aims = np.concatenate([s_e**0.5 * g @ w.T, s_k**0.5 * k @ w.T, ridge**0.5 * w.T])
        expected = np.linalg.lstsq(rows, aims, rcond=None)[0].T
        np.testing.assert_allclose(new.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_uce_on_sentences_is_uce_on_templates_that_say_the_same(make: Callable[..., Model]) -> None:
    """As many of the grammar's as are asked for, of the seed's choice, for what is erased and for what is kept."""
    request = Request((Concept("cat"),), keep=(Concept("car"), Concept("van gogh", kind="style")))
    known = make()
    words = {"object": ["dog", "bear", "car"], "style": list(known.hints.styles)}
    told = {
        kind: grammar.forms(grammar.read("plain"), kind, words, count=4, seed=5)
        for kind in ("object", "style")
    }
    assert all(len(forms) == 4 for forms in told.values())
    other = make()
    other.hints = replace(other.hints, templates=told)
    found = edit_for(known, request, method="uce", settings={"sentences": 4, "retain_sentences": 4}, seed=5)
    expected = edit_for(other, request, method="uce", settings={"templates": True}, seed=1)
    assert all(torch.equal(expected.weights[name], new) for name, new in found.weights.items())
    fewer = edit_for(known, request, method="uce", settings={"sentences": 4, "retain_sentences": 3}, seed=5)
    assert fewer.hash() != found.hash()


def test_diverse_uce_is_uce_on_sentences(model: Model) -> None:
    told = {"sentences": 6, "retain_sentences": 2, "neighbours": 3}
    same = {"templates": True, "tokens": "all", "erase_weight": 10.0, "ridge": 0.1}
    found = edit_for(model, CAT, method="uce-diverse", settings=told, seed=3)
    assert found.hash() == edit_for(model, CAT, method="uce", settings=told | same, seed=3).hash()


def test_no_text_of_uce_contains_another_erased_word(make: Callable[..., Model]) -> None:
    """In a template of what is kept, or of a target, it would pull its columns back."""
    request, known = Request((Concept("cat"), Concept("picture")), keep=(Concept("dog"),)), make()
    told, forms = {"templates": True, "tokens": "all"}, ("{}", "a photo of a {}")
    erase = [(one, form, one.name) for one in request.erase for form in forms]
    c, g, _ = erased_matrices(known, erase, last=False)
    k = retained_matrix(known, [(request.keep[0], form, "dog") for form in forms], last=False)
    delta = UCE(**told).delta(c @ c.T, (g - c) @ c.T, k @ k.T)
    for name, weight in edit_for(known, request, method="uce", settings=told).weights.items():
        w = known.weights("text")[name].detach().double()
        torch.testing.assert_close(weight, (w + w @ delta).float(), rtol=1e-5, atol=1e-6)


def test_several_concepts_weigh_together_as_much_as_one(model: Model) -> None:
    both = Request((*CAT.erase, Concept("van gogh", "style")))
    told = {"sentences": 6, "retain_sentences": 2, "neighbours": 3}
    same = {"templates": True, "tokens": "all", "erase_weight": 5.0, "ridge": 0.1}  # 10 of two
    found = edit_for(model, both, method="uce-diverse", settings=told, seed=3)
    expected = edit_for(model, both, method="uce", settings=told | same, seed=3)
    for name, weight in expected.weights.items():
        torch.testing.assert_close(found.weights[name], weight)


def test_uce_changes_by_no_more_rank_than_columns(model: Model) -> None:
    request = Request((Concept("cat", phrases=("kitten",)),))
    for name, new in edit_for(model, request, method="uce").weights.items():
        difference = (new - model.weights()[name].detach()).double()
        assert torch.linalg.matrix_rank(difference, rtol=1e-4) <= 2


def test_uce_refuses_singular_equations(model: Model) -> None:
    with pytest.raises(InputError, match="singular with ridge = 0: raise ridge"):
        edit_for(model, CAT, method="uce", settings={"ridge": 0.0})


def test_uce_restores_grad_mode(model: Model) -> None:
    edit_for(model, CAT, method="uce")
    assert torch.is_grad_enabled()
