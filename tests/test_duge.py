"""DUGE: its losses by hand and by a plain route, its readings, and its memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_attention import NAMES, by_hand
from test_ca import batch, plain

from unlearnkit.data.bank import memory_prompts
from unlearnkit.errors import InputError
from unlearnkit.methods import edit_for, plan
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.attention import map_distance, steer_maps, token_alignment
from unlearnkit.training.job import Job

CAT = Request((Concept("cat"),), keep=(Concept("dog"),))
QUICK: dict[str, Any] = {
    **{"steps": 1, "batch": 3, "pictures": 3, "retain_pictures": 3, "memory": 3, "lr": 1e-3},
    **{"relative_erase": False},
}
DOGS, CATS = ([word, f"a photo of a {word}", f"{word} in a picture"] for word in ("dog", "cat"))


def erase(model: Model, request: Request = CAT, *, folder: Path | None = None, **changes: Any) -> Edit:
    return edit_for(model, request, method="duge", settings=QUICK | changes, seed=2, job=Job(folder=folder))


def first(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    return found


def test_the_distance_is_a_mean_over_layers_of_any_size() -> None:
    one, two = torch.tensor([[1.0, 3.0]]), torch.zeros(2, 2)
    found = map_distance([one, two], [torch.zeros(1, 2), torch.full((2, 2), 2.0)])
    assert found.item() == (5.0 + 4.0) / 2


def test_steered_maps_by_hand() -> None:
    null, cond = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.1, 0.1, 0.8]])
    # (0.5 + 0.4, 0.3 + 0.2, 0.2 - 0.6) is cut at 0 and sums to 1.4
    torch.testing.assert_close(
        steer_maps(torch.cat([null, cond]), 1.0), torch.tensor([[0.9, 0.5, 0.0]]) / 1.4
    )


@pytest.mark.parametrize(
    ("start", "end", "other", "expected"),
    [
        (1, 2, 2, [1, 2, 4, 8, 16, 32]),  # words of one token each: nothing changes
        (1, 3, 2, [1, 2, 4 + 8, 16, 32, 0]),  # a word of two tokens, 2 and 3
        (1, 2, 3, [1, 2, 4, 8, 16 + 32, 0]),  # beside it: what follows goes on, and the end is cut alike
        (1, 1, 2, [1, 2, 0, 4, 8, 16 + 32]),  # no word at all leaves its column empty
    ],
)
def test_folded_maps_by_hand(start: int, end: int, other: int, expected: list[float]) -> None:
    columns = torch.tensor([1.0, 2, 4, 8, 16, 32])
    assert (columns @ token_alignment(6, start, end, other)).tolist() == expected


def test_its_first_losses_are_those_of_the_plain_network(model: Model, tmp_path: Path) -> None:
    """The attention loss from queries and keys head by head, all others from the U-Net itself."""
    erase(model, output_weight=0.5, retain_weight=2.0, distil_weight=3.0, folder=tmp_path)
    line = first(tmp_path)
    x, t, _, which = batch(model, "duge", CATS)
    prompted = [CATS[place] for place in which]
    error = 0.0
    for name in NAMES:
        maps, null = (by_hand(model, name, (x, t, model.encode(words))) for words in (prompted, [""] * 3))
        error += (maps - null).square().mean().item() / len(NAMES)
    assert line["erase"] == pytest.approx(error, rel=1e-3)
    way = plain(model, x, t, prompted) - plain(model, x, t, [""] * 3)
    assert line["erase_output"] == pytest.approx(0.5 * way.square().mean().item(), rel=1e-4)
    errors = []
    for label, words in (("prior", DOGS), ("memory", list(memory_prompts(model, CAT, CAT.keep, 3)))):
        x, t, noise, which = batch(model, ("duge", label), words)
        errors.append((plain(model, x, t, [words[place] for place in which]) - noise).square().mean().item())
    assert line["retain"] == pytest.approx(2.0 * sum(errors) / 2, rel=1e-4)
    assert line["keep_distil"] == pytest.approx(0, abs=1e-9)  # the trained network is the base still


def test_a_steered_target_steers_the_noise_too(model: Model, tmp_path: Path) -> None:
    erase(model, output_weight=0.5, attention_weight=0.0, target="steered", eta=2.0, folder=tmp_path)
    x, t, _, which = batch(model, "duge", CATS)
    prompted, null = (plain(model, x, t, words) for words in ([CATS[place] for place in which], [""] * 3))
    # null - 2 (prompted - null) is 3 (prompted - null) away from what is prompted
    assert first(tmp_path)["erase_output"] == pytest.approx(
        0.5 * 9 * (prompted - null).square().mean().item(), rel=1e-4
    )


def test_the_prompt_less_its_word_stands_for_no_concept(model: Model, tmp_path: Path) -> None:
    erase(model, output_weight=1.0, null="rest", folder=tmp_path)
    x, t, _, which = batch(model, "duge", CATS)
    without = [["", "a photo of a", "in a picture"][place] for place in which]
    prompted = [CATS[place] for place in which]
    way = plain(model, x, t, prompted) - plain(model, x, t, without)
    assert first(tmp_path)["erase_output"] == pytest.approx(way.square().mean().item(), rel=1e-4)
    error = 0.0
    # the word's own column has a counterpart of nothing, what follows it is moved back by one
    for name in NAMES:
        maps, null = (by_hand(model, name, (x, t, model.encode(words))) for words in (prompted, without))
        for one, other, place in zip(maps, null, which, strict=True):
            at = [1, 5, 1][place]
            moved = torch.cat([other[..., :at], torch.zeros_like(other[..., :1]), other[..., at:]], dim=-1)
            moved = torch.cat([moved[..., :-2], moved[..., -2:].sum(dim=-1, keepdim=True)], dim=-1)
            error += (one - moved).square().sum().item() / (maps.numel() * len(NAMES))
    assert first(tmp_path)["erase"] == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("eta", [None, 2.0])
def test_attention_may_be_what_is_read_from_the_values(
    eta: float | None, model: Model, tmp_path: Path
) -> None:
    steered = {"target": "steered", "eta": eta} if eta else {}
    erase(model, attends="output", null="rest", folder=tmp_path, **steered)
    x, t, _, which = batch(model, "duge", CATS)
    without = [["", "a photo of a", "in a picture"][place] for place in which]
    error = 0.0
    for name in NAMES:
        read, null = (
            by_hand(model, name, (x, t, model.encode(words)), "output")
            for words in ([CATS[place] for place in which], without)
        )
        error += (1 + (eta or 0)) ** 2 * (read - null).square().mean().item() / len(NAMES)
    assert first(tmp_path)["erase"] == pytest.approx(error, rel=1e-3)


def test_its_weight_makes_the_first_attention_loss_one(model: Model, tmp_path: Path) -> None:
    erase(model, attention_weight=3.0, relative_erase=True, folder=tmp_path)
    assert first(tmp_path)["erase"] == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "steered", "rule": ()},
        {"target": "steered", "retain_target": "teacher", "memory": 0},
        {"combine": "preserving", "distil_weight": 1.0, "retain_weight": 0.0, "checkpointing": True},
        {
            "attention_weight": 0.0,
            "output_weight": 1.0,
            "retain_weight": 0.0,
            "memory": 0,
            "trains": "xattn-kv",
        },
        {"null": "rest", "target": "steered", "output_weight": 1.0},
        {"attends": "output", "target": "steered"},
    ],
)
def test_its_readings_work_with_several_concepts(changes: dict[str, Any], model: Model) -> None:
    request = Request((Concept("cat", instead="a red car"), Concept("van gogh", kind="style")), keep=CAT.keep)
    stock = list(model.denoiser.attn_processors.values())
    assert erase(model, request, steps=2, **changes).weights
    now = model.denoiser.attn_processors.values()
    assert all(one is other for one, other in zip(now, stock, strict=True))


def test_training_draws_the_maps_to_those_of_no_prompt(model: Model, tmp_path: Path) -> None:
    erase(model, steps=30, lr=3e-3, rule=(), retain_weight=0.0, folder=tmp_path)
    losses = [json.loads(line)["erase"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_processors_are_restored_when_a_run_breaks_off(model: Model) -> None:
    stock = list(model.denoiser.attn_processors.values())

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit_for(model, CAT, method="duge", settings=QUICK, job=Job(progress=interrupt))
    now = model.denoiser.attn_processors.values()
    assert all(one is other for one, other in zip(now, stock, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_weight": 0.0}, "attention_weight=0 and output_weight=0 erase nothing"),
        ({"distil_weight": 1.0, "memory": 0}, "distil_weight needs a memory bank"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str, model: Model) -> None:
    with pytest.raises(InputError, match=message):
        erase(model, **changes)


def test_the_plan_keeps_to_the_budgets(model: Model) -> None:
    found = plan(
        model, CAT, method="duge", settings=QUICK | {"memory": 7, "target": "steered", "distil_weight": 1.0}
    )
    assert found.sampled_images == 3 + 3 + 7
    assert found.passes == (3 + 3 + 3, 9)
