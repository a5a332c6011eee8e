"""Sculpting Memory's losses, superclasses and stages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearnkit import seeds
from unlearnkit.data import pictures
from unlearnkit.data.superclasses import superclass_of
from unlearnkit.errors import InputError
from unlearnkit.methods import edit_for, plan
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job

CAT = Request((Concept("cat"),))
TWO = Request((Concept("cat"), Concept("car", instead="tree")))
FEW: dict[str, Any] = {"pictures": 3, "batch": 2, "steps": 2, "mask_warmup": 1, "mask_every": 1, "lr": 1e-2}
FORMS = ["{}", "a photo of a {}", "{} in a picture"]


def erase(model: Model, request: Request = CAT, *, job: Job | None = None, **changes: Any) -> Any:
    return edit_for(model, request, method="sculpting", settings=FEW | changes, seed=4, job=job)


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Plain:
    """A batch noised by hand."""

    def __init__(self, model: Model, latents: Tensor, words: list[str], draws: torch.Generator) -> None:
        self.model, which = model, torch.randint(len(latents), (2,), generator=draws)
        self.t = torch.randint(1000, (2,), generator=draws)
        self.noise = torch.randn((2, 4, 8, 8), generator=draws)
        self.x = model.pipe.scheduler.add_noise(latents[which], self.noise, self.t)
        self.forms = [FORMS[place % 3] for place in which]
        self.words = [words[place // 3] for place in which]

    def eps(self, word: str | None = None) -> Tensor:
        states = self.model.encode(
            [form.replace("{}", word or own) for form, own in zip(self.forms, self.words, strict=True)]
        )
        with torch.no_grad():
            return self.model.eps(self.x, self.t, states)


def drawn(model: Model, word: str, *, negative: str = "") -> Tensor:
    return pictures.draw(model, [form.replace("{}", word) for form in FORMS], negative=negative)


def mean(a: Tensor, b: Tensor) -> Any:
    return pytest.approx((a - b).square().mean().item(), rel=1e-4)


def test_first_losses_are_those_of_the_equations(model: Model, tmp_path: Path) -> None:
    erase(model, job=Job(folder=tmp_path), steps=1, retain_weight=0.5, earlier=("bear",), replay_weight=2.0)
    warm, line = logged(tmp_path)
    look = Plain(model, drawn(model, "cat"), ["cat"], seeds.stream(4, "sculpting warm-up", 0))
    assert warm["erase"] == mean(look.eps(), look.noise)
    draws = seeds.stream(4, "sculpting", 1)
    cat = Plain(model, drawn(model, "cat"), ["cat"], draws)
    animal = Plain(model, drawn(model, "animal", negative="cat"), ["animal"], draws)
    assert line["erase"] == mean(cat.eps(), cat.eps("animal"))
    assert line["align"] == pytest.approx(
        0.5 * (animal.eps() - animal.noise).square().mean().item(), rel=1e-4
    )
    assert line["distil"] == pytest.approx(0.0, abs=1e-10)  # the student is its teacher still
    assert line["replay"] == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("teacher", ["frozen", "student"])
def test_the_target_is_steered_away_from_the_concept(teacher: str, model: Model, tmp_path: Path) -> None:
    erase(model, job=Job(folder=tmp_path), steps=1, eta=2.0, teacher=teacher)
    cat = Plain(model, drawn(model, "cat"), ["cat"], seeds.stream(4, "sculpting", 1))
    # animal + 2 (animal - cat) = 3 animal - 2 cat
    assert logged(tmp_path)[1]["erase"] == mean(cat.eps(), 3 * cat.eps("animal") - 2 * cat.eps())


def test_pictures_of_a_superclass_are_without_all_that_is_erased_of_it(model: Model, tmp_path: Path) -> None:
    request = Request((Concept("cat"), Concept("dog"), Concept("car")))
    erase(
        model, request, job=Job(folder=tmp_path), order="joint", steps=1, distil_weight=0.0, retain_weight=1.0
    )
    draws = seeds.stream(4, "sculpting", 1)
    Plain(model, torch.zeros(9, 4, 8, 8), ["cat", "dog", "car"], draws)
    animals = drawn(model, "animal", negative="cat, dog")
    found = torch.cat([animals, animals, drawn(model, "vehicle", negative="car")])
    anchor = Plain(model, found, ["animal", "animal", "vehicle"], draws)
    assert logged(tmp_path)[1]["align"] == mean(anchor.eps(), anchor.noise)


def test_distillation_lives_once_the_student_has_moved(model: Model, tmp_path: Path) -> None:
    erase(model, job=Job(folder=tmp_path), steps=3, earlier=("bear",))
    last = logged(tmp_path)[-1]
    assert last["distil"] > 1e-8
    assert last["replay"] > 1e-8
    with_it, without = erase(model, steps=3, distil_weight=0.25), erase(model, steps=3, distil_weight=0.0)
    assert with_it.hash() != without.hash()


def test_the_released_code_follows_the_student_itself(model: Model, tmp_path: Path) -> None:
    released = {"teacher": "student", "distil_weight": 0.0, "replay_weight": 0.0}
    erase(model, job=Job(folder=tmp_path / "a"), steps=2, **released)
    erase(model, job=Job(folder=tmp_path / "b"), steps=2, **{**released, "teacher": "frozen"})
    own, frozen = logged(tmp_path / "a"), logged(tmp_path / "b")
    assert own[1] | {"seconds": 0} == frozen[1] | {"seconds": 0}
    assert own[2]["erase"] != frozen[2]["erase"]
    assert "distil" not in own[2]


def test_the_table_knows_superclasses_and_the_request_comes_first() -> None:
    assert superclass_of(Concept("Cat")) == "animal"
    assert superclass_of(Concept("chain saw")) == "power tool"
    assert superclass_of(Concept("neon", kind="style")) == "art"
    assert superclass_of(Concept("cat", instead="pet"), "plain") == "pet"
    assert superclass_of(Concept("cat"), "plain") == "plain"


@pytest.mark.parametrize(
    ("concept", "changes", "says"),
    [
        (Concept("zebu"), {}, "no superclass of 'zebu' is known: say what takes its place with --instead"),
        (
            Concept("cat", phrases=("feline",)),
            {"superclass": "Feline"},
            "the superclass 'Feline' is the concept itself",
        ),
        (
            Concept("car"),
            {"retain_set": "members"},
            "no other word .* share a superclass with 'car': leave retain_set=",
        ),
    ],
)
def test_a_superclass_that_cannot_be_is_refused(
    concept: Concept, changes: dict[str, Any], says: str, model: Model
) -> None:
    for go in (edit_for, plan):
        with pytest.raises(InputError, match=says):
            go(model, Request((concept,)), method="sculpting", settings=changes)


@pytest.mark.parametrize(
    ("name", "retain_set", "earlier", "asked"),
    [
        ("cat", "members", (), ["animal", "dog", "bear"]),  # of the vocabulary's cat, dog, bear and car
        ("car", "all", (), ["vehicle", "cat", "dog"]),  # and bear, had it more than three pictures
        ("bear", "all", ("cat",), ["animal", "dog", "car"]),  # what is gone holds nothing
    ],
)
def test_other_words_hold_the_superclass_in_turn(
    name: str, retain_set: str, earlier: tuple[str, ...], asked: list[str], model: Model, tmp_path: Path
) -> None:
    request = Request((Concept(name),))
    erase(
        model,
        request,
        job=Job(folder=tmp_path),
        steps=1,
        retain_weight=0.5,
        retain_set=retain_set,
        earlier=earlier,
    )
    draws = seeds.stream(4, "sculpting", 1)
    Plain(model, drawn(model, name), [name], draws)
    which = torch.randint(3, (2,), generator=draws)
    t, noise = torch.randint(1000, (2,), generator=draws), torch.randn((2, 4, 8, 8), generator=draws)
    x = model.pipe.scheduler.add_noise(pictures.draw(model, asked)[which], noise, t)
    with torch.no_grad():
        eps = model.eps(x, t, model.encode([asked[place] for place in which]))
    assert logged(tmp_path)[1]["align"] == pytest.approx(0.5 * (eps - noise).square().mean().item(), rel=1e-4)


def test_several_concepts_are_erased_in_turn_each_from_the_one_before(model: Model, tmp_path: Path) -> None:
    edit = erase(model, TWO, job=Job(folder=tmp_path))
    first, second = logged(tmp_path / "stage-1"), logged(tmp_path / "stage-2")
    assert "replay" not in first[-1]
    assert second[1]["replay"] == pytest.approx(0.0, abs=1e-10)
    assert second[2]["replay"] > 1e-8
    own = seeds.derive(4, "stage", 0)
    alone = edit_for(model, CAT, method="sculpting", settings=FEW, seed=own)
    # the first loss of the second stage is that of the network after the first
    cars, draws = drawn(model, "car"), seeds.stream(seeds.derive(4, "stage", 1), "sculpting", 1)
    with model.wearing(alone):
        car = Plain(model, cars, ["car"], draws)
        assert second[1]["erase"] == mean(car.eps(), car.eps("tree"))
    assert edit.hash() != alone.hash()
    assert plan(model, TWO, method="sculpting", settings=FEW).steps == 2 * 3
    assert plan(model, TWO, method="sculpting", settings={**FEW, "order": "joint"}).steps == 1 + 2 * 2


@pytest.mark.parametrize("when", [2, 5])
def test_killed_in_a_stage_it_goes_on_to_the_same_bits(when: int, model: Model, tmp_path: Path) -> None:
    counted: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        counted.append(done) if stage in ("warm-up", "training") else None
        if len(counted) == when:
            raise KeyboardInterrupt

    job = Job(folder=tmp_path, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        erase(model, TWO, job=replace(job, progress=stop))
    assert erase(model, TWO, job=job).hash() == erase(model, TWO).hash()


def test_all_at_once_is_one_run_over_all_concepts(model: Model, tmp_path: Path) -> None:
    erase(model, TWO, job=Job(folder=tmp_path), order="joint", steps=1)
    assert len(logged(tmp_path)) == 1 + 2  # the warm-up, and a step for each concept
    draws = seeds.stream(4, "sculpting", 1)
    both = Plain(model, torch.cat([drawn(model, "cat"), drawn(model, "car")]), ["cat", "car"], draws)
    broader = [{"cat": "animal", "car": "tree"}[word] for word in both.words]
    target = torch.cat([both.eps(word)[place : place + 1] for place, word in enumerate(broader)])
    assert logged(tmp_path)[1]["erase"] == mean(both.eps(), target)
