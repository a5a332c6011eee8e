"""The evaluation: paired, resumable, honest about failures, and its claims are refused where they must be."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blobs import smooth, tools
from unlearnkit import suites
from unlearnkit.canvas import WEIGHTS
from unlearnkit.errors import InputError
from unlearnkit.evaluation.claims import verdict
from unlearnkit.evaluation.draw import Side, draw, model_side, picture_hash, read
from unlearnkit.evaluation.evaluate import evaluate
from unlearnkit.evaluation.plan import Rules, cases_for, plan_for, thinned
from unlearnkit.evaluation.record import stored
from unlearnkit.evaluation.rows import same
from unlearnkit.evaluation.selftest import EXPECTED, filtered, self_test, spoiler
from unlearnkit.evaluation.tables import tables
from unlearnkit.metrics.stats import needed
from unlearnkit.model.model import Model
from unlearnkit.schema import Case, Concept, Request, Score

CAT = Request((Concept("cat"),))
shipped = pytest.mark.skipif(not (WEIGHTS / "never-knew").is_dir(), reason="no weights are shipped yet")


# claims, from rows made by hand


class Words:
    """Stands where instruments stand in a plan."""

    names = ("reader@0",)
    network = "reader@0"


def panel_of(forms: dict[str, int], kept: int = 120) -> list[Case]:
    """``forms``: prompts that ask for the cat; ``kept`` near and as many unrelated ones."""
    erased = [
        Case(f"{form}-{i}-0", f"{form}-{i}", f"{form} {i}", i, "erased", form, "cat", "", "cat")
        for form, count in forms.items()
        for i in range(count)
    ]
    rest = [
        Case(f"{role}-{i}-0", f"{role}-{i}", f"{role} {i}", i, role, "name", "dog")  # type: ignore[arg-type]
        for role in ("near", "unrelated")
        for i in range(kept)
    ]
    return erased + rest


def verdict_of(
    cases: list[Case],
    shown: Callable[[Case, str], bool],
    failure: Callable[[Case, str], str] = lambda case, side: "",
    *,
    sides: tuple[str, ...] = ("before", "after"),
    weights: bool = True,
    features: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The verdict on pictures of which ``shown`` says whether they show what was asked for."""
    drawing = [Side(name, name, lambda prompts, seeds: [], weights=weights) for name in sides]
    missing = {"object": ["cat"]} if "never-knew" in sides else None
    plan = plan_for("prompts", CAT, cases, [], drawing, Words(), Rules(), missing=missing)  # type: ignore[arg-type]
    scores = []
    for case in cases:
        for side in sides:
            values: dict[str, Any] = {"failure": failure(case, side)}
            values["reader@0/object"] = case.object if shown(case, side) else "bear"
            if side != "before":
                values["change"] = (
                    0.0 if shown(case, side) == shown(case, "before") and sides[0] == side else 9.0
                )
            scores += [
                Score(case.id, side, "", metric, value, "prompts@1") for metric, value in values.items()
            ]
    return verdict(plan, tables(plan, cases, scores, features or {}))


def gone_in(*forms: str) -> Callable[[Case, str], bool]:
    return lambda case, side: side == "before" or case.role != "erased" or case.form not in forms


def test_what_the_untouched_model_never_draws_rightly_is_not_kept() -> None:
    """As where a file of prompts has words that no classifier says: 0 of 60 before, 0 of 60 after."""
    cases = panel_of({"name": 60})
    found = verdict_of(cases, lambda case, side: side == "before" and case.role == "erased")
    assert found["kept"]["verdict"] == "not shown"
    assert "What stays is kept" not in found["sentence"]
    assert "too seldom right to tell: near objects (0 of 120" in found["sentence"]


def test_grades_from_rows() -> None:
    cases = panel_of({"name": 60, "synonym": 60, "template": 60})
    everything = ("name", "synonym", "template")
    found = verdict_of(cases, gone_in(*everything))
    assert found["grade"] == "generalises"
    assert found["kept"]["verdict"] == "kept"
    assert "seen in 0 of 60 (0 %, 0.0 to 6.0), before 60 of 60" in found["sentence"]
    assert found["concepts"][0]["missing"] == ["attacks on it: unlearnkit attack"]
    only = verdict_of(cases, gone_in("name", "synonym"))
    assert only["grade"] == "suppressed"
    assert "template: still seen in 60 of 60" in only["sentence"]
    assert verdict_of(cases, gone_in("synonym"))["grade"] == "not shown"
    filtered = verdict_of(cases, gone_in(*everything), weights=False)
    assert filtered["grade"] == "suppressed"
    assert "a filter hides the concept" in filtered["sentence"]
    leaky = verdict_of(cases, gone_in("name", "template"), weights=False)
    assert leaky["grade"] == "suppressed"
    assert "synonym: still seen in 60 of 60" in leaky["sentence"]
    assert "a filter hides the concept" in leaky["sentence"]
    assert any("brought back" in line for line in found["not claimed"])


def test_a_grade_is_refused_for_want_of_prompts_and_controls() -> None:
    few = verdict_of(panel_of({"name": needed(0.1) - 1}), gone_in("name"))
    assert few["grade"] == "not shown"
    assert few["concepts"][0]["missing"] == ["direct prompts: 35 prompts or more"]
    assert verdict_of(panel_of({"name": needed(0.1)}), gone_in("name"))["grade"] == "suppressed"
    never = verdict_of(panel_of({"name": 60}), lambda case, side: case.role != "erased")
    assert never["grade"] == "not shown"
    assert "the untouched model itself shows it in only 0 of 60" in never["sentence"]
    blind = verdict_of(
        panel_of({"name": 60, "synonym": 60}),
        lambda case, side: gone_in("name", "synonym")(case, side) and case.form != "synonym",
    )
    assert blind["grade"] == "suppressed"
    assert "synonym: the untouched model itself" in blind["sentence"]
    without = verdict_of([case for case in panel_of({"name": 60}) if case.role == "erased"], gone_in("name"))
    assert "that anything else was kept" in without["not claimed"]


def test_damage_is_said() -> None:
    cases = panel_of({"name": 60})

    def harms(role: str, every: int) -> Callable[[Case, str], bool]:
        return lambda case, side: (
            side == "before" or (case.role != "erased" and not (case.role == role and case.seed % every == 0))
        )

    assert verdict_of(cases, harms("near", 3))["kept"]["verdict"] == "lost"
    assert verdict_of(cases, harms("unrelated", 40))["kept"]["verdict"] == "not shown"
    assert (
        "Damaged by more than 5 points: near objects (-33.3 points"
        in verdict_of(cases, harms("near", 3))["sentence"]
    )


def test_ruined_pictures_are_no_erasure() -> None:
    cases = panel_of({"name": 60, "synonym": 60})
    for groups in (("erased",), ("erased", "near", "unrelated")):
        found = verdict_of(
            cases,
            gone_in("name", "synonym"),
            lambda case, side, groups=groups: "blank" if side == "after" and case.role in groups else "",  # type: ignore[misc]
        )
        assert found["grade"] == "collapsed"
        assert "60 of 60" in found["sentence"] or "360 of 360" in found["sentence"]


def test_the_distance_to_a_model_that_never_knew_is_said_and_grades_nothing() -> None:
    cases = panel_of({"name": 60, "synonym": 60})
    rng = np.random.default_rng(0)
    sides = ("before", "after", "never-knew")
    n, cats = len(cases), np.array([case.role == "erased" for case in cases])
    knows, never = rng.normal(size=(n, 6)), rng.normal(size=(n, 6))
    knows[cats] += 2.0

    def features(after: Any) -> dict[str, Any]:
        return {"before/reader": knows, "after/reader": after, "never-knew/reader": never}

    like, between = never + rng.normal(size=(n, 6)) * 0.05, never.copy()
    between[cats] += 1.0
    gone = verdict_of(cases, gone_in("name", "synonym"), sides=sides, features=features(like))
    assert gone["grade"] == "generalises"
    assert "This distance grades nothing" in gone["sentence"]
    damaged = verdict_of(cases, gone_in("name", "synonym"), sides=sides, features=features(between))
    assert damaged["grade"] == "generalises"
    near, far = (re.search(r"pictures are (\S+) \(KID\)", one["sentence"]) for one in (gone, damaged))
    assert near
    assert far
    assert float(near[1]) < float(far[1])


def test_failed_pictures_stay_in_every_denominator() -> None:
    cases = panel_of({"name": 60})
    spoilt = lambda case, side: "prompt too long" if case.seed < 6 else ""  # noqa: E731
    drawing = [Side(name, name, lambda prompts, seeds: []) for name in ("before", "after")]
    plan = plan_for("prompts", CAT, cases, [], drawing, Words(), Rules())  # type: ignore[arg-type]
    scores = [
        Score(case.id, side, "", metric, value, "prompts@1")
        for case in cases
        for side in ("before", "after")
        for metric, value in (
            ("failure", spoilt(case, side)),
            ("reader@0/object", case.object),
            ("change", 1.0),
        )
    ]
    found = tables(plan, cases, scores, {})
    assert found["concepts"][0]["direct"]["after"]["n"] == 60
    assert found["concepts"][0]["direct"]["after"]["k"] == 54
    assert found["failed"]["reasons"]["after"] == {"prompt too long": 18}
    assert found["unlearncanvas"]["UA"]["after"]["value"] == pytest.approx(0.1)
    assert json.loads(json.dumps(found)) == found


def test_accuracy_over_concepts_counts_each_of_them_alike() -> None:
    """Six dogs, all right after the edit, and two bears, both wrong: the mean over concepts is a half."""
    cases = panel_of({"name": 10}, kept=4)
    bears = [
        dataclasses.replace(one, id=f"b{i}", prompt_id=f"b{i}", object="bear")
        for i, one in enumerate(cases[-2:])
    ]
    cases = cases[:-2] + bears
    drawing = [Side(name, name, lambda prompts, seeds: []) for name in ("before", "after")]
    plan = plan_for("prompts", CAT, cases, [], drawing, Words(), Rules())  # type: ignore[arg-type]
    scores = [
        Score(case.id, side, "", metric, value, "prompts@1")
        for case in cases
        for side in ("before", "after")
        for metric, value in (
            ("failure", ""),
            ("reader@0/object", "nothing" if side == "after" and case.object != "dog" else case.object),
            ("change", 1.0),
        )
    ]
    found = tables(plan, cases, scores, {})["unlearncanvas"]
    assert (found["IRA"]["before"]["value"], found["IRA"]["after"]["value"]) == (1, 0.5)
    assert (found["IRA"]["after"]["k"], found["IRA"]["after"]["n"]) == (2, 4)
    assert (found["UA"]["before"]["value"], found["UA"]["after"]["value"]) == (0, 1)
    assert found["UA"]["after"]["low"] == pytest.approx(1 - 0.2775, abs=1e-4), "Wilson, 10 of 10"


@pytest.mark.parametrize(
    ("label", "word", "equal"),
    [("tabby, tabby cat", "tabby cat", True), ("Van_Gogh", "van gogh", True), ("golf ball", "ball", False)],
)
def test_labels_are_matched_whole(label: str, word: str, equal: bool) -> None:
    assert same(label, word) == equal


# drawing and the folder, on a toy model


@pytest.fixture
def asking(tmp_path: Path) -> list[Case]:
    """Eleven prompts, one of them too long for the toy model."""
    lines = [
        "prompt,role,object",
        *(f"a cat {i},erased,cat" for i in range(6)),
        f"{'cat ' * 30},erased,cat",
    ]
    lines += [f"a dog {i},near,dog" for i in range(4)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    return suites.cases("prompts", CAT, file=tmp_path / "rows.csv")[0]


def run(folder: Path, model: Model, after: Side, cases: list[Case], **options: Any) -> dict[str, Any]:
    sides = [model_side("before", model), after]
    plan = plan_for("prompts", CAT, cases, [], sides, tools(), Rules())
    return evaluate(folder, cases, sides, plan, tools(), **options)


@pytest.mark.parametrize("kind", ["identity", "blank", "noise"])
def test_the_evaluator_is_not_fooled(
    make: Callable[..., Model], tmp_path: Path, asking: list[Case], kind: str
) -> None:
    """Self-test on a toy: the pictures before are smooth blobs, so that noise is a change."""
    model = make()
    before = Side("before", "blobs", lambda prompts, seeds: list(smooth(prompts, seeds)))
    after = Side("after", "blobs", before.sample) if kind == "identity" else spoiler(kind, model)
    sides = [before, after]
    plan = plan_for("prompts", CAT, asking, [], sides, tools(), Rules())
    found = evaluate(tmp_path / "out", asking, sides, plan, tools())
    assert found["grade"] == EXPECTED[kind]


def test_a_filter_strikes_out_the_word_and_nothing_else(make: Callable[..., Model]) -> None:
    model = make()
    plain = Side("before", "blobs", lambda prompts, seeds: list(smooth(prompts, seeds)))
    prompts, seeds = ["a dog", "a CAT on a mat", "a catfish"], [3, 4, 5]
    side = filtered("cat", model, plain)
    found = [picture_hash(one) for one in side.sample(prompts, seeds)]
    struck = model.sample(["a  on a mat"], [4], negative="cat")
    others = list(smooth(prompts[::2], seeds[::2]))
    assert found == [picture_hash(one) for one in (others[0], *struck, others[1])]
    assert not side.weights
    assert side.identity != plain.identity


def test_pictures_do_not_depend_on_batches_or_processes(
    make: Callable[..., Model], tmp_path: Path, asking: list[Case]
) -> None:
    model = make()
    for batch in (1, 7, 32):
        draw(asking, model_side("before", model, batch=batch), tmp_path / f"{batch}")
    for index in (0, 1):
        draw(asking, model_side("before", model, batch=3), tmp_path / "two", process=(index, 2))
    for case in asking:
        pictures = [
            np.asarray(read(tmp_path / way / f"{case.id}.png")[0], int) for way in ("1", "7", "32", "two")
        ]
        for other in pictures[1:]:
            assert np.abs(other - pictures[0]).max() <= 1, "at most one level of 255, see Model.sample"
    plain = model.sample([asking[0].prompt], [asking[0].seed])[0]
    assert picture_hash(read(tmp_path / "1" / f"{asking[0].id}.png")[0]) == picture_hash(plain)


def test_a_killed_evaluation_goes_on_and_draws_nothing_twice(
    make: Callable[..., Model], tmp_path: Path, asking: list[Case]
) -> None:
    model, drawn = make(), []
    edited = make(seed=1)
    plain = model_side("after", edited, batch=4)

    def dies(prompts: Any, seeds: Any) -> list[Image.Image]:
        if len(drawn) >= 4:
            raise KeyboardInterrupt
        drawn.extend(seeds)
        return plain.sample(prompts, seeds)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", model, dataclasses.replace(plain, sample=dies), asking)
    assert len(list((tmp_path / "killed/pictures/after").glob("*.png"))) == 4

    def counts(prompts: Any, seeds: Any) -> list[Image.Image]:
        drawn.extend(seeds)
        return plain.sample(prompts, seeds)

    again = run(tmp_path / "killed", model, dataclasses.replace(plain, sample=counts), asking)
    assert sorted(drawn) == sorted(case.seed for case in asking)
    whole = run(tmp_path / "whole", model, plain, asking)
    assert again == whole
    one, two = (stored(tmp_path / name) for name in ("killed", "whole"))
    assert one[2] == two[2]
    assert one[3].keys() == two[3].keys() == {f"{side}/reader" for side in ("before", "after")}
    assert {score.value for score in one[2] if score.metric == "failure" and len(score.case) > 45} >= {
        "prompt too long"
    }
    assert run(tmp_path / "whole", model, plain, asking) == whole, "finished: returned as it is"
    with pytest.raises(InputError, match=r"another plan \(cases differs"):
        run(tmp_path / "whole", model, plain, asking[:-1])


def test_a_prompt_that_is_too_long_is_said_once(
    make: Callable[..., Model], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    side = model_side("before", make())
    draw([Case("long", "long", "cat " * 2500, 0, "erased", "name")], side, tmp_path)
    assert read(tmp_path / "long.png")[1]["failure"] == "prompt too long"
    assert len(caplog.text) < 5000


def test_anothers_pictures_are_not_taken(
    make: Callable[..., Model], tmp_path: Path, asking: list[Case]
) -> None:
    draw(asking[:2], model_side("before", make()), tmp_path)
    with pytest.raises(InputError, match="drawn by another model"):
        draw(asking[:2], model_side("before", make(seed=1)), tmp_path)


def test_pictures_that_are_no_numbers_are_a_category(
    tmp_path: Path, make: Callable[..., Model], asking: list[Case]
) -> None:
    model = make()
    name = random.Random(0).choice(sorted(model.weights("xattn")))
    broken = {name: torch.full_like(model.weights("xattn")[name], float("nan"))}
    with model.wearing(broken):
        draw(asking[:3], model_side("after", model), tmp_path)
    assert {read(tmp_path / f"{case.id}.png")[1]["failure"] for case in asking[:3]} == {"not a number"}


def test_a_quick_evaluation_asks_enough_and_no_more() -> None:
    cases, _ = suites.cases("canvas", CAT)
    thin, _ = thinned(cases)
    assert set(thin) < set(cases)
    erased = [sum(case.role == "erased" for case in each) for each in (thin, cases)]
    assert erased[0] < 3 / 4 * erased[1]
    for form in ("name", "synonym", "template", "background"):
        prompts = {case.prompt_id for case in thin if case.role == "erased" and case.form == form}
        assert len(prompts) >= needed(Rules().limit)
    for role in ("near", "unrelated"):
        assert len({case.prompt_id for case in thin if case.role == role}) >= needed(Rules().margin)
    again, _ = suites.cases("canvas", CAT, replicates=2)
    fuller, _ = thinned(cases, again)
    assert len({case.id for case in fuller}) == len(fuller)
    assert [case for case in fuller if case.role == "erased"] == [c for c in thin if c.role == "erased"]
    for role in ("near", "unrelated"):
        assert sum(case.role == role for case in fuller) == 240


def test_the_plan_says_how_probably_a_small_loss_is_found_kept() -> None:
    drawing = [Side(name, name, lambda prompts, seeds: []) for name in ("before", "after")]
    for kept, least, most in ((80, 0.25, 0.4), (220, 0.8, 0.9)):
        cases = panel_of({"name": 40}, kept=kept)
        plan = plan_for("prompts", CAT, cases, [], drawing, Words(), Rules())  # type: ignore[arg-type]
        assert {*plan.data["power"]} == {"near", "unrelated"}
        assert all(least < share < most for share in plan.data["power"].values())


def test_too_few_pictures_do_not_read_like_damage() -> None:
    found = verdict_of(panel_of({"name": 40}, kept=60), gone_in("name"))["kept"]
    assert found["verdict"] == "not shown"
    assert found["sentence"].startswith(
        "Too few pictures to say whether it stays within 5 points: near objects"
    )


def test_what_is_left_of_the_rest_of_the_prompt() -> None:
    """The style of an erased object's prompts, before and after."""
    cases = [dataclasses.replace(case, style="neon") for case in panel_of({"name": 20})]
    drawing = [Side(name, name, lambda prompts, seeds: []) for name in ("before", "after")]
    plan = plan_for("prompts", CAT, cases, [], drawing, Words(), Rules())  # type: ignore[arg-type]
    scores = []
    for number, case in enumerate(cases):
        for side in ("before", "after"):
            style = "neon" if side == "before" or number % 4 else "plain"
            values = {"failure": "", "reader@0/object": "dog", "reader@0/style": style, "change": 1.0}
            scores += [Score(case.id, side, f"{side}{case.id}", name, v, "s@1") for name, v in values.items()]
    rest = tables(plan, cases, scores, {})["concepts"][0]["rest right"]
    assert (rest["before"]["k"], rest["after"]["k"], rest["after"]["n"]) == (20, 15, 20)


def test_a_reference_draws_what_it_is_compared_on() -> None:
    cases, _ = suites.cases("canvas", CAT)
    sides = [Side(name, name, lambda prompts, seeds: []) for name in ("before", "after", "never-knew")]
    missing = {"object": ["cat", "car"], "style": ["neon"]}
    plan = plan_for("canvas", CAT, cases, [], sides, Words(), Rules(), missing=missing)  # type: ignore[arg-type]
    ids = {case.id: case for case in cases_for(plan, "never-knew", cases)}
    assert cases_for(plan, "after", cases) == cases
    assert set(ids) == {*plan.reference.ask, *plan.reference.both}
    assert {(ids[i].role, ids[i].form) for i in plan.reference.ask} == {("erased", "name")}
    assert not {ids[i].style for i in plan.reference.ask} & {"neon"}
    assert not {"cat", "car"} & {ids[i].object for i in plan.reference.both}
    assert len(ids) <= 120


@shipped
@pytest.mark.slow
@pytest.mark.timeout(3600)  # 6 minutes of one core's time, which a busy machine may not give in 15
def test_the_self_test_of_the_evaluator(tmp_path: Path) -> None:
    found = self_test(tmp_path)
    assert {name: one["grade"] for name, one in found.items()} == EXPECTED
