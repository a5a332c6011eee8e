"""A quick evaluation draws retained prompts in two rounds, and the second only where the first decides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blobs import smooth, tools
from unlearnkit import suites
from unlearnkit.errors import InputError
from unlearnkit.evaluation import claims
from unlearnkit.evaluation.draw import Side
from unlearnkit.evaluation.evaluate import evaluate
from unlearnkit.evaluation.plan import LEVEL, Plan, Rules, plan_for, thinned
from unlearnkit.evaluation.record import stored
from unlearnkit.evaluation.verify import verify
from unlearnkit.metrics.stats import tango
from unlearnkit.schema import Case, Concept, Request

CAT = Request((Concept("cat"),))


@pytest.fixture(autouse=True)
def toys_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys' classifier recognises none of these pictures, so nothing could be said of what is kept."""
    monkeypatch.setattr(claims, "_unknown", lambda *_: False)


def asking(folder: Path, kept: int) -> list[Case]:
    """Six cats, then as many near and unrelated dogs as asked for."""
    lines = [*(f"a cat {i},erased,cat" for i in range(6))]
    lines += [f"a dog {i} {role},{role},dog" for i in range(kept) for role in ("near", "unrelated")]
    (folder / "rows.csv").write_text("\n".join(["prompt,role,object", *lines]))
    return suites.cases("prompts", CAT, file=folder / "rows.csv")[0]


def looked(run: Path, cases: list[Case], first: int) -> dict[str, Any]:
    """The verdict on an edit that changes pictures of cats alone."""

    def after(prompts: Any, seeds: Any) -> list[Image.Image]:
        return list(
            smooth(prompts, [seed + ("cat" in prompt) for prompt, seed in zip(prompts, seeds, strict=True)])
        )

    sides = [
        Side("before", "blobs", lambda prompts, seeds: list(smooth(prompts, seeds))),
        Side("after", "edit", after),
    ]
    plan = plan_for("prompts", CAT, cases, [], sides, tools(), Rules(), first=first)
    assert plan.rounds == (first, len(cases))
    assert plan.level == LEVEL
    return evaluate(run / "evaluation" / "prompts", cases, sides, plan, tools())


@pytest.mark.parametrize(("early", "drawn"), [(120, 246), (20, 286)])
def test_the_second_round_is_drawn_where_the_first_decides_nothing(
    tmp_path: Path, early: int, drawn: int
) -> None:
    """Without a loss in n pairs the bound is z² / (n + z²), below 5 points from n = 19 z² = 90.1 on, z = 2.178."""
    assert -tango(0, 0, 91, level=LEVEL)[0] < 0.05 < -tango(0, 0, 90, level=LEVEL)[0]
    cases = asking(tmp_path, 140)
    found = looked(tmp_path, cases, 6 + 2 * early)
    assert found["kept"]["verdict"] == "kept"
    _, used, scores, features = stored(tmp_path / "evaluation" / "prompts")
    assert used == cases[:drawn]
    assert {score.case for score in scores} == {case.id for case in used}
    assert {len(array) for array in features.values()} <= {drawn}
    pictures = tmp_path / "evaluation" / "prompts" / "pictures"
    assert {len(list((pictures / side).iterdir())) for side in ("before", "after")} == {drawn}
    assert verify(tmp_path) == []
    assert looked(tmp_path, cases, 6 + 2 * early) == found, "a finished evaluation is read"


@pytest.mark.parametrize(("early", "always"), [(20, True), (120, False)])
def test_verify_finds_a_round_too_few_or_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: int, always: bool
) -> None:
    with monkeypatch.context() as other:
        other.setattr(claims, "decided", lambda *_: always)
        looked(tmp_path, asking(tmp_path, 140), 6 + 2 * early)
    assert verify(tmp_path) == ["evaluation/prompts/rows.jsonl does not end with the round that decided"]


@pytest.mark.parametrize("rounds", [[], [3], [3, 3, 5], [0, 5], [-1, 5], [6, 5]])
def test_rounds_that_are_none_are_refused(tmp_path: Path, rounds: list[int]) -> None:
    sides = [Side(name, name, lambda prompts, seeds: []) for name in ("before", "after")]
    plan = plan_for("prompts", CAT, asking(tmp_path, 2)[:5], [], sides, tools(), Rules(), first=3)
    assert plan.rounds == (3, 5)
    data = {**plan.data, "cases": {**plan.data["cases"], "rounds": rounds}}
    with pytest.raises(InputError, match="are no rounds of 5 cases"):
        Plan.of(data)


def test_the_first_round_has_all_that_is_erased_and_a_share_of_the_rest() -> None:
    cases, _ = suites.cases("canvas", CAT)
    again, _ = suites.cases("canvas", CAT, replicates=2)
    chosen, first = thinned(cases, again)
    for role, early in (("near", 110), ("unrelated", 110)):
        assert [sum(case.role == role for case in part) for part in (chosen[:first], chosen)] == [early, 240]
    assert all(case.role != "erased" for case in chosen[first:])
