"""What keeps a chain from eroding: each guard does what its formula says, and every method can have it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import quick
from torch import Tensor

from unlearnkit import chain
from unlearnkit.chain.guards import Guards, closed_form_request, guard_losses, leading, projection
from unlearnkit.chain.screening import join, memory_bank, protected_texts, screen
from unlearnkit.data.image_sets import DenoiserInput
from unlearnkit.data.wording import contains_word
from unlearnkit.errors import InputError
from unlearnkit.methods import METHODS, edit_for
from unlearnkit.model.model import Model
from unlearnkit.schema import KINDS, Concept, Request
from unlearnkit.training.job import Job
from unlearnkit.training.net import Net, Step
from unlearnkit.training.settings import Training
from unlearnkit.training.state import CHECKPOINT

CAT, DOG, NEON = (
    Request((Concept("cat", phrases=("kitten",)),)),
    Request((Concept("dog"),)),
    Request((Concept("neon", "style"),)),
)


OFF: dict[str, Any] = {"bank": 0, "replay": 0}


def alone(**told: Any) -> Guards:
    """What a test does not speak of is off."""
    return Guards(**OFF | {"bank_weight": 1.0} | told)


def shifted(model: Model, part: str = "xattn") -> dict[str, Tensor]:
    """Weights as some request may have left them."""
    draws = torch.Generator().manual_seed(1)
    return {
        name: weight.detach() + 0.05 * torch.randn(weight.shape, generator=draws)
        for name, weight in model.weights(part).items()
    }


def losses(model: Model, guards: Guards, worn: dict[str, Tensor], **options: Any) -> dict[str, float]:
    """The guards' losses at the first step, for a student that wears what the last request left."""
    base = model.weights("all")
    with model.wearing(worn):
        added = guard_losses(
            model,
            DOG,
            options.pop("earlier", [CAT]),
            base,
            list(worn),
            guards,
            batch=4,
            seed=0,
            job=Job(),
            **options,
        )
        assert added is not None
        with torch.no_grad():
            return {name: loss.item() for name, loss in added.losses(Net(model), Step(0, 0)).items()}


def test_the_bank_draws_to_the_first_model_and_replay_to_the_last(model: Model) -> None:
    guards = alone(bank=4, replay=2, bank_weight=1.0, replay_weight=3.0)
    at_first = losses(model, guards, {})
    assert at_first == {"keep_bank": 0.0, "keep_replay": 0.0}
    later = losses(model, guards, shifted(model))
    assert (
        later["keep_bank"] > 1e-6
    )  # the student stands where the last request left it, the teacher at the start
    assert later["keep_replay"] == 0.0
    twice = losses(model, alone(bank=4, bank_weight=2.0), shifted(model))
    assert twice["keep_bank"] == pytest.approx(2 * later["keep_bank"], rel=1e-5)


def test_the_banks_loss_is_the_formula(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    guards, worn, base = alone(bank=4), shifted(model), model.weights("all")
    with model.wearing(worn):
        added = guard_losses(model, DOG, [CAT], base, list(worn), guards, batch=3, seed=0, job=Job())
        assert added is not None
        seen: list[DenoiserInput] = []

        class Watching(Net):
            def student(self, inputs: Any, *, joint: bool = False) -> list[torch.Tensor]:
                seen.extend(inputs)
                return super().student(inputs, joint=joint)

        with torch.no_grad():
            found = added.losses(Watching(model), Step(5, 0))
            (rows,) = seen
            student = model.eps(rows.x, rows.t, rows.cond)
    with torch.no_grad():
        teacher = model.eps(rows.x, rows.t, rows.cond)
    assert found["keep_bank"].item() == pytest.approx((student - teacher).square().mean().item(), rel=1e-5)


def test_no_guard_adds_nothing(model: Model) -> None:
    assert guard_losses(model, DOG, [], model.weights("all"), [], alone(), batch=1, seed=0, job=Job()) is None
    assert (
        guard_losses(model, DOG, [], model.weights("all"), [], alone(replay=3), batch=1, seed=0, job=Job())
        is None
    )


def test_the_bank_grows_with_the_requests_within_its_budget_and_holds_nothing_erased(model: Model) -> None:
    one = memory_bank(model, CAT, [], near=2, budget=8)
    two = memory_bank(model, NEON, [CAT], near=2, budget=8)
    # half of 8 for the near words, of which there are two and then three; of 4 for six words each other one has one
    assert [len(each) for each in one.words] == [2, 2, 1, 1, 1]
    assert [len(each) for each in two.words] == [2, 2, 2, 1]
    assert {word.name for word in two.concepts} > {word.name for word in one.concepts} - {"neon"}
    for words, bank in ((["cat", "kitten"], one), (["cat", "kitten", "neon"], two)):
        assert not any(contains_word(prompt, words) for prompt in bank.prompts)
    assert memory_bank(model, NEON, [CAT], near=2, budget=8) == two


def test_a_request_takes_its_own_words_from_the_bank_and_moves_no_other(model: Model, tmp_path: Path) -> None:
    one, two = (
        memory_bank(model, CAT, [], near=0, budget=12),
        memory_bank(model, DOG, [CAT], near=0, budget=12),
    )
    assert len(one.words) == 5  # of six words
    assert {len(each) for each in one.words} == {2}
    assert set(two.words) == {
        each for each in one.words if not any(contains_word(text, ["dog"]) for text in each)
    }
    base, drawn = model.weights("all"), []
    for request, earlier in ((CAT, []), (DOG, [CAT])):
        job = Job(cache=tmp_path, progress=lambda title, done, total: drawn.append((done, total)))
        guard_losses(model, request, earlier, base, [], alone(bank=12), batch=1, seed=0, job=job)
        drawn.append((len(list(tmp_path.rglob("*.safetensors"))), 0))
    assert drawn == [*((n, 10) for n in (2, 4, 6, 8, 10)), (5, 0), *((n, 8) for n in (2, 4, 6, 8)), (5, 0)]


def test_a_bank_without_words_is_refused(model: Model) -> None:
    every = Request(tuple(Concept(word, kind) for kind in KINDS for word in model.hints.vocabulary(kind)))
    with pytest.raises(InputError, match="leaves no word for the bank: choose bank=0"):
        memory_bank(model, every, [], near=0, budget=8)


def test_what_was_erased_is_screened_out_of_words_and_templates(model: Model) -> None:
    clean = screen(model, [CAT, Request((Concept("picture"),))])
    assert clean.hints.objects == ("dog", "bear", "car")
    assert clean.hints.templates["object"] == ("a photo of a {}",)
    assert screen(model, []) is model
    assert clean.pipe is model.pipe
    everything = join([Request((Concept("cat"),), keep=(Concept("dog"),)), DOG])
    assert [one.name for one in everything.erase] == ["cat", "dog"]
    assert not everything.keep


@pytest.mark.parametrize("method", ["esd", "uce"])
def test_projected_updates_leave_neighbours_and_earlier_targets_alone(
    method: str, model: Model, tmp_path: Path
) -> None:
    settings = {"esd": quick("esd", trains="xattn-kv"), "uce": {}}[method]
    project = tmp_path / "p"
    chain.init(project, model, method=method, settings=settings, guards=OFF, pictures=0)
    chain.add(project, "cat", model=model)
    before = chain.edit(project, model=model).weights
    chain.add(project, "car", guards={"project": 2, "free": 0.0}, model=model)
    after = chain.edit(project, model=model).weights
    states = model.encode(["cat", ""])
    texts = torch.stack([states[0, model.last_token("cat")], states[1, 0]])
    moved = 0.0
    for name, weight in after.items():
        step = weight - before.get(name, model.weights("all")[name].detach())
        moved += step.abs().sum().item()
        assert (step @ texts.T).abs().max() < 1e-4 * (1 + step.abs().max())
    assert moved > 0


def test_a_target_inside_what_is_protected_is_refused(model: Model) -> None:
    base = model.weights("all")
    with pytest.raises(InputError, match=r"'cat' lies inside the protected text: 0\.00 of it is outside"):
        projection(model, Request((Concept("cat"),)), [Request((Concept("cat"),))], base, alone(project=1))
    found = projection(model, DOG, [CAT], base, alone(project=2, general=2, free=0.0))
    for basis in found.bases.values():
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]))


@pytest.mark.parametrize(
    ("method", "why"), [("advunlearn", "trains the text encoder"), ("casteer", "changes neither")]
)
def test_a_method_that_leaves_keys_and_values_alone_has_no_use_for_protecting_them(
    method: str, why: str, model: Model, tmp_path: Path
) -> None:
    chain.init(tmp_path / "p", model, method=method, settings=quick(method, 1), guards=OFF, pictures=0)
    with pytest.raises(InputError, match=f"{method} {why}"):
        chain.add(tmp_path / "p", "cat", guards={"anchor": True, "free": 0.0}, model=model)


def test_the_leading_directions_by_hand() -> None:
    change = torch.diag(torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64))  # energies 9 and 16 of 25
    for share, axes in ((0.0, []), (0.5, [1]), (0.64, [1]), (0.65, [1, 0]), (1.0, [1, 0])):
        assert leading(change, share).abs().argmax(dim=1).tolist() == axes
    assert leading(torch.zeros(2, 3, dtype=torch.float64), 1.0).shape == (0, 3)


def test_anchors_stay_and_a_new_change_is_across_the_earlier_ones(model: Model, tmp_path: Path) -> None:
    """By an independent route: each update, taken from the edits, against text states and the singular vectors."""
    project, base = tmp_path / "p", model.weights("all")
    chain.init(project, model, method="uce", guards=OFF, pictures=0)
    chain.add(project, "cat", instead="bear", model=model)
    first = chain.edit(project, model=model).weights
    guards = {"anchor": True, "history": 1.0, "free": 0.0}
    chain.add(project, "van gogh", kind="style", guards=guards, model=model)
    second = chain.edit(project, model=model).weights
    still = ["bear", "a photo of a bear", "art"]
    for name, weight in second.items():
        one, two = (first[name] - base[name]).double(), (weight - first[name]).double()
        assert two.norm() > 1e-4 * one.norm() > 0
        assert (one @ two.T).abs().max() < 1e-5 * one.norm() * two.norm()
        for text in still:
            state = model.text([text])[0, model.last_token(text)].double()
            assert (two @ state).norm() < 1e-5 * two.norm() * state.norm()
        other = model.text(["dog"])[0, model.last_token("dog")].double()
        assert (two @ other).norm() > 1e-4 * two.norm() * other.norm()


def test_a_closed_form_keeps_what_the_guards_protect(model: Model) -> None:
    asked = closed_form_request(model, DOG, [CAT], alone(bank=4, bank_near=1, replay=1), 0)
    assert {one.name for one in asked.keep} >= {"cat"}
    assert len(asked.keep) > 1
    assert closed_form_request(model, DOG, [CAT], alone(), 3) is DOG
    assert closed_form_request(model, DOG, [CAT], alone(bank=200), 3) is DOG, "no word is near to a request"
    assert closed_form_request(model, DOG, [CAT], alone(bank_near=3), 3) is DOG, "no bank"
    only = closed_form_request(model, DOG, [CAT], alone(replay=1), 0)
    assert [one.name for one in only.keep] == ["cat"]


@pytest.fixture(scope="module")
def begun(make: Callable[..., Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain that erased the cat; treat it as read-only."""
    project, model = tmp_path_factory.mktemp("begun") / "p", make()
    chain.init(project, model, method="uce", pictures=0)
    chain.add(project, "cat", model=model)
    return project


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_have_every_guard_that_suits_it(
    method: str, model: Model, begun: Path, tmp_path: Path
) -> None:
    trains = issubclass(METHODS[method], Training)
    guards = {"bank": 2, "bank_near": 1, "replay": 1, "project": 1, "free": 0.0}
    if method in ("advunlearn", "casteer"):  # keys and values rest
        guards["project"] = 0
    few: dict[str, Any] = {"steps": 2} if trains else {}
    few |= {"neighbours": 1} if method == "duge" else {}  # the toy's vocabulary has no more words
    project = Path(shutil.copytree(begun, tmp_path / "p"))
    logged: list[dict[str, Any]] = []

    def look(stage: str, done: int, total: int) -> None:
        for log in (project / "work").rglob("log.jsonl"):
            logged.extend(json.loads(line) for line in log.read_text().splitlines())

    broad = {"instead": "animal"} if method == "sculpting" else {}
    settings = quick(method, 2, **few)
    chain.add(
        project, "dog", method=method, settings=settings, guards=guards, model=model, tick=look, **broad
    )
    if trains:
        assert {"keep_bank", "keep_replay"} <= {name for line in logged for name in line}
    assert not chain.verify(project)
    told = chain.log(project)[-1].facts
    assert told["recipe"]["guards"] | guards == told["recipe"]["guards"]
    assert told["weights"] != told["before"]


def test_a_run_with_guards_goes_on_from_its_checkpoint_to_the_same_bits(model: Model, tmp_path: Path) -> None:
    settings = quick("esd")
    base = model.weights("all")

    def job(folder: Path, progress: Any = None) -> Job:
        plain = Job(folder=folder, checkpoint_every=1, progress=progress)
        added = guard_losses(model, DOG, [CAT], base, [], alone(bank=2, replay=1), batch=2, seed=0, job=plain)
        return Job(folder=folder, checkpoint_every=1, progress=progress, auxiliary=added)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 2:
            raise KeyboardInterrupt

    whole = edit_for(model, DOG, method="esd", settings=settings, job=job(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        edit_for(model, DOG, method="esd", settings=settings, job=job(tmp_path / "cut", stop))
    assert (tmp_path / "cut" / CHECKPOINT).exists()
    again = edit_for(model, DOG, method="esd", settings=settings, job=job(tmp_path / "cut"))
    assert again.hash() == whole.hash()
    plain = edit_for(model, DOG, method="esd", settings=settings)
    assert plain.hash() != whole.hash()
    other = Job(folder=tmp_path / "whole")
    with pytest.raises(InputError, match="has the edit of another run"):
        edit_for(model, DOG, method="esd", settings=settings, job=other)


def test_a_method_leaves_its_own_memory_to_the_chains_unless_it_is_told_otherwise(
    model: Model, tmp_path: Path
) -> None:
    few = {"steps": 1, "batch": 2, "neighbours": 1, "retain_pictures": 2, "pictures": 2}
    for turn, (guards, told, memory) in enumerate(
        [
            ({"bank": 4}, {}, 0),
            ({"bank": 0}, {}, 100),
            ({"bank": 4}, {"memory": 3}, 3),
        ]
    ):
        project, guards = tmp_path / f"{turn}", OFF | guards
        chain.init(project, model, method="duge", settings=few, guards=guards, pictures=0)
        entry = chain.add(project, "cat", settings=told, model=model)
        assert entry.facts["recipe"]["settings"]["memory"] == memory


def test_no_protected_anchor_stands_beside_what_is_erased(model: Model) -> None:
    """The text that takes a concept's place is protected in every template, but not in one with an erased word."""
    more = {kind: (*forms, "an art print of a {}") for kind, forms in model.hints.templates.items()}
    told = model.with_hints(replace(model.hints, templates=more))
    earlier, now = (
        Request((Concept("cat", instead="dog"),)),
        Request((Concept("art", "style", instead="neon"),)),
    )
    how = {"nearest": 0, "general": 0, "places": lambda one: one.instead}
    found = [protected_texts(one, now, [earlier], **how) for one in (model, told)]
    torch.testing.assert_close(*found)
    other = Request((Concept("van gogh", "style", instead="neon"),))
    assert len(protected_texts(told, other, [earlier], **how)) > len(
        protected_texts(model, other, [earlier], **how)
    )
