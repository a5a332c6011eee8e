"""Training that stops when erasing has converged, by the model's own predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearnkit.data.prompts import prompts
from unlearnkit.methods import edit_for, plan, resolve
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.runs.stopped import sentences
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job, Run
from unlearnkit.training.net import Net
from unlearnkit.training.panel import TIMES, Panel

CAT = Request((Concept("cat"),))
FEW: dict[str, Any] = {
    **{"trains": "xattn-kv", "steps": 9, "lr": 1e-3, "batch": 2, "start": "pictures", "templates": True},
    **{"pictures": 4, "stop": "converged", "stop_every": 1},
}


def esd(model: Model, *, job: Job | None = None, **changes: Any) -> Edit:
    return edit_for(model, CAT, method="esd", settings=FEW | changes, seed=1, job=job)


def panel_of(model: Model, request: Request = CAT, place: str | None = "") -> Panel:
    return Panel(Run(model, request, Net(model)), lambda concept: place)


def test_the_untouched_model_has_come_no_way_and_moved_nothing(model: Model) -> None:
    reading = panel_of(model).read()
    assert reading.come == 0
    assert reading.moved == 0


def test_a_model_that_predicts_the_target_has_come_all_the_way(model: Model) -> None:
    """By hand: the panel's own prompts are exchanged for its targets."""
    panel = panel_of(model, place="dog")
    panel.prompts = panel.targets
    reading = panel.read()
    assert reading.come == pytest.approx(1)
    assert reading.moved == pytest.approx(1)


def test_the_slowest_prompt_counts(model: Model) -> None:
    panel = panel_of(model, place="dog")
    slow = int(panel.counts.nonzero()[-1])
    panel.prompts = [*panel.targets[:slow], panel.prompts[slow], *panel.targets[slow + 1 :]]
    reading = panel.read()
    assert (reading.slowest, reading.come) == (slow, 0)


def test_a_prompt_that_hardly_shows_the_concept_does_not_count(model: Model) -> None:
    """The toy reads twelve tokens, so some sentences end before the concept comes."""
    style = Request((Concept("van gogh", "style"),))
    panel = panel_of(model, style)
    assert not panel.counts.all()
    panel.prompts = panel.targets
    assert panel.read().come == pytest.approx(1)


def test_without_a_target_the_loss_counts(model: Model) -> None:
    """At 1 the concept's word helps no more than no word."""
    panel = Panel(Run(model, CAT, Net(model)), lambda concept: "", targeted=False)
    assert panel.read().come == 0
    panel.true = panel.base[: panel.count]  # as if the base model had no error
    panel.worth, panel.counts = panel._more(panel.way[: panel.count]), torch.ones_like(panel.counts)
    panel.prompts = panel.targets
    assert panel.read().come == pytest.approx(1)


def test_fewest_steps_and_the_ends_of_cycles(model: Model) -> None:
    """With onecycle training ends only where a cycle ends, and the next cycle is the first again."""
    given: dict[str, Any] = {"stop_reach": 0.0, "stop_brake": 100.0, "steps": 8}
    late = esd(model, stop_from=0.625, **given).facts["stopped"][0]
    assert (late["step"], late["converged"]) == (5, True)
    given |= {"schedule": "onecycle", "steps": 4, "stop_most": 2}
    cycle = esd(model, **given)
    assert cycle.facts["stopped"][0]["step"] == 4
    assert cycle.hash() == esd(model, schedule="onecycle", stop="none", steps=4).hash()
    again = esd(model, **given | {"stop_reach": 10.0}).facts["stopped"][0]
    assert (again["step"], again["of"], again["converged"]) == (8, 8, False)


def test_no_method_trains_on_the_panels_prompts(model: Model) -> None:
    panel = panel_of(model)
    assert not set(panel.prompts[: panel.count]) & set(prompts(CAT.erase[0], model.hints, templates=True))
    assert all("cat" in prompt for prompt in panel.prompts[: panel.count])
    assert not any("cat" in prompt for prompt in panel.prompts[panel.count :])


def test_a_long_list_has_a_small_panel(model: Model) -> None:
    many = Request(tuple(Concept(f"cat {number}") for number in range(150)))
    assert panel_of(model, many).count <= 64


def test_training_stops_as_soon_as_the_panel_holds_twice(model: Model, tmp_path: Path) -> None:
    stopped = esd(model, job=Job(folder=tmp_path), stop_reach=0.0, stop_brake=100.0)
    facts = stopped.facts["stopped"]
    assert [(one["step"], one["of"], one["converged"]) for one in facts] == [(facts[0]["step"], 9, True)]
    steps = facts[0]["step"]
    assert stopped.hash() == esd(model, steps=steps, stop="none").hash()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == steps
    assert all(line["come"] >= 0 for line in lines[-2:])
    assert "stopped after" in sentences(stopped.facts)[0]


def test_a_limit_without_convergence_is_a_warning(model: Model) -> None:
    edit = esd(model, stop_reach=10.0)
    assert edit.hash() == esd(model, stop="none").hash()
    assert edit.facts["stopped"][0]["converged"] is False
    assert "not converged in 9 steps" in sentences(edit.facts)[0]
    braked = esd(model, stop_reach=0.0, stop_brake=0.0)
    assert "retained words have moved" in sentences(braked.facts)[0]


def test_a_killed_run_stops_at_the_same_step(model: Model, tmp_path: Path) -> None:
    """The kill comes between the two readings that must hold."""
    whole = esd(model, stop_reach=0.0, stop_brake=100.0, stop_patience=3)
    last = whole.facts["stopped"][0]["step"]
    assert last >= 3

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == last - 1:
            raise KeyboardInterrupt

    job = Job(folder=tmp_path, checkpoint_every=1)
    given: dict[str, Any] = {"stop_reach": 0.0, "stop_brake": 100.0, "stop_patience": 3}
    with pytest.raises(KeyboardInterrupt):
        esd(model, job=replace(job, progress=interrupt), **given)
    again = esd(model, job=job, **given)
    assert again.hash() == whole.hash()
    assert again.facts["stopped"] == whole.facts["stopped"]


def test_each_stage_stops_on_its_own(model: Model, tmp_path: Path) -> None:
    request = Request((Concept("cat", instead="bear"), Concept("dog", instead="bear")))
    settings: dict[str, Any] = {"steps": 4, "pictures": 2, "mask_warmup": 1, "mask_every": 2, "lr": 1e-3}
    settings |= {"stop": "converged", "stop_every": 2, "stop_reach": 10.0}

    def interrupt(stage: str, done: int, total: int) -> None:
        if (tmp_path / "stages.safetensors").exists():
            raise KeyboardInterrupt

    job = Job(folder=tmp_path)
    whole = edit_for(model, request, method="sculpting", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        edit_for(model, request, method="sculpting", settings=settings, job=replace(job, progress=interrupt))
    again = edit_for(model, request, method="sculpting", settings=settings, job=job)
    assert len(whole.facts["stopped"]) == 2
    assert again.facts["stopped"] == whole.facts["stopped"]
    assert again.hash() == whole.hash()


def test_a_dry_run_counts_the_panel(model: Model) -> None:
    watched = plan(model, CAT, method="esd", settings=FEW | {"stop_every": 3})
    blind = plan(model, CAT, method="esd", settings=FEW | {"stop": "none"})
    prompts_ = watched.sampled_images - blind.sampled_images
    assert prompts_ == len(panel_of(model).prompts)
    rows = prompts_ * len(TIMES)
    assert watched.passes[0] - blind.passes[0] == pytest.approx(rows * (2 + 9 // 3) / 9)
    assert watched.passes[1] == blind.passes[1]


@pytest.mark.parametrize(
    ("method", "place"), [("esd", None), ("ca", "dog"), ("doco", "dog"), ("sculpting", "animal"), ("rgd", "")]
)
def test_every_method_says_what_takes_the_concepts_place(
    model: Model, method: str, place: str | None
) -> None:
    asked: Any = resolve(model, CAT, method, {})
    found = asked.place(model, CAT, CAT.erase[0])
    assert found in ("bear", "car", "dog") if place == "dog" else found == place
    other = Request((Concept("cat", instead="bear"),))
    assert asked.place(model, other, other.erase[0]) == "bear"


def test_reading_draws_no_random_numbers(model: Model) -> None:
    panel = panel_of(model)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    panel.read()
    assert torch.equal(before, torch.get_rng_state())


def test_a_closed_form_is_solved_again_with_twice_the_weight(model: Model) -> None:
    """Until the panel holds, or the retained words would move further than the brake."""
    few: dict[str, Any] = {"erase_weight": 0.01, "ridge": 0.5}
    once = edit_for(model, CAT, method="uce", settings=few)
    assert "stopped" not in once.facts
    far = edit_for(model, CAT, method="uce", settings=few | {"reach": 10.0, "brake": 100.0})
    assert far.facts["stopped"][0]["why"] == "erase_weight is 0.64"
    assert far.hash() == edit_for(model, CAT, method="uce", settings=few | {"erase_weight": 0.64}).hash()
    assert "does NOT hold" in sentences(far.facts)[0]
    braked = edit_for(model, CAT, method="uce", settings=few | {"reach": 10.0, "brake": 0.0})
    assert braked.hash() == once.hash()
    facts = {**braked.facts["stopped"][0], "converged": True}
    assert "the solution holds" in sentences({"stopped": [facts]})[0]
    told = plan(model, CAT, method="uce", settings=few | {"reach": 0.5})
    assert told.sampled_images == len(panel_of(model).prompts)


def test_what_is_trained_in_any_case_is_trained(model: Model) -> None:
    """Readings before these steps count for the patience, but end nothing."""
    facts = esd(model, stop_reach=0.0, stop_brake=100.0, steps=9, stop_every=2, stop_from=0.6).facts
    assert facts["stopped"][0]["step"] == 6


def test_weights_that_no_reading_saw_are_read_at_the_end(model: Model) -> None:
    edit = esd(model, steps=3, stop_every=20)
    with model.wearing(edit):
        panel = panel_of(model)
    (facts,) = edit.facts["stopped"]
    assert facts["come"] != 0 and facts["moved"] > 0
    assert facts["slowest"] in panel.prompts


def test_a_stage_does_not_watch_what_another_stage_erases(model: Model) -> None:
    both = Request((Concept("cat"), Concept("dog")))
    panel = Panel(Run(model, CAT, Net(model), full=both), lambda concept: "")
    assert not any("dog" in prompt for prompt in panel.prompts)
