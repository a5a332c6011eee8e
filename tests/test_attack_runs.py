"""Attacks of a run: a folder of records beside a control, gone on with after kills, verified, and graded."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import saved
from unlearnkit import chain
from unlearnkit.attacks import ATTACKS, BUDGETS, Budget, find
from unlearnkit.canvas import WEIGHTS
from unlearnkit.chain.commands import attack as of_chain
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.evaluation.attacked import carry_out, record
from unlearnkit.evaluation.attacked.figures import AttackFigures, arm_figures, headline
from unlearnkit.evaluation.attacked.grades import LADDER, graded
from unlearnkit.evaluation.attacked.run import attack, plan, targets
from unlearnkit.evaluation.attacked.selftest import EXPECTED
from unlearnkit.evaluation.compare import compare
from unlearnkit.evaluation.report import report
from unlearnkit.evaluation.verify import check, verify
from unlearnkit.io import manifest
from unlearnkit.metrics.stats import Interval, newcombe
from unlearnkit.model.load import load
from unlearnkit.schema import Concept, Request

TINY = Budget("quick", steps=2, batch=2, candidates=2, pictures=3, examples=2)
TOOLS: dict[str, Any] = {"evaluators": lambda device: saved.tools()}


@pytest.fixture
def run(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the evaluated run, to be attacked with a tiny budget."""
    monkeypatch.setitem(BUDGETS, "quick", TINY)
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


@pytest.fixture(scope="module")
def attacked(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run after one attack; treat it as read-only."""
    folder = Path(shutil.copytree(evaluated, tmp_path_factory.mktemp("attacked") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUDGETS, "quick", TINY)
        attack(folder, attacks=["inpainting"], **TOOLS)
    return folder


@pytest.fixture
def inpainted(attacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run that was attacked by inpainting."""
    monkeypatch.setitem(BUDGETS, "quick", TINY)
    return Path(shutil.copytree(attacked, tmp_path / "run"))


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file but the one that has times."""
    files = manifest.contents(folder)
    return {name: manifest.file_hash(path) for name, path in files.items() if "attack.json" not in name}


def test_an_attack_is_recorded_and_verified(run: Path):
    figures = attack(run, attacks=["sdedit", "probe"], **TOOLS)
    assert set(figures) == {"sdedit", "probe"}
    one = figures["sdedit"]["arms"]["noised to 50%"]
    assert one["after"]["n"] == one["control"]["n"] == 3
    assert figures["probe"]["figures"].keys() == {"after"}  # of an unrelated concept it says nothing
    control = json.loads((run / "attacks/sdedit/plan.json").read_text())["control"]
    assert control["kind"] == "unrelated concept"
    assert control["concept"] in ("dog", "bear", "car", "tree")
    assert verify(run) == []
    assert attack(run, attacks=["sdedit"], **TOOLS)["sdedit"] == figures["sdedit"]  # nothing is done again


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pictures/after/0001.png", "changed later"),
        ("rows.jsonl", "changed later"),
        ("after/found.json", "changed later"),
        ("control/found.safetensors", "is missing"),
    ],
)
def test_a_changed_file_is_found(inpainted: Path, name: str, says: str):
    path = inpainted / "attacks" / "inpainting" / name
    if says == "is missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"\n")
    (line,) = verify(inpainted)
    assert says in line
    with pytest.raises(InputError, match="remove the folder and attack again"):
        attack(inpainted, attacks=["inpainting"], **TOOLS)


def test_figures_that_do_not_follow_are_found(inpainted: Path):
    folder = inpainted / "attacks" / "inpainting"
    figures = json.loads((folder / "figures.json").read_text())
    figures["arms"]["no prompt"]["after"]["k"] = 3
    (folder / "figures.json").write_text(record.text_of(figures))
    facts = json.loads((folder / "attack.json").read_text())
    facts["sha256"]["figures.json"] = manifest.file_hash(folder / "figures.json")
    (folder / "attack.json").write_text(manifest.dump(facts))
    assert verify(inpainted) == ["attacks/inpainting/figures.json does not follow from rows.jsonl"]


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("figures.json", '"counted": ', '"counts": ', "it has no 'counted'"),
        ("figures.json", '"limit": 0.1', '"limit": "x"', "limit"),
        ("plan.json", '"name": "quick"', '"name": 3', "name"),
        ("plan.json", '"format": 1', '"format": 9', "format 9 of attacks"),
        ("rows.jsonl", '"shows": ', '"showed": ', "it has no 'shows'"),
    ],
)
def test_files_of_another_shape_are_one_line(inpainted: Path, name: str, old: str, new: str, says: str):
    folder = inpainted / "attacks" / "inpainting"
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    facts = json.loads((folder / "attack.json").read_text())
    facts["sha256"][name] = manifest.file_hash(folder / name)
    (folder / "attack.json").write_text(manifest.dump(facts))
    (line,) = verify(inpainted)
    assert says in line
    with pytest.raises(InputError, match=re.escape(says)):
        report(inpainted)


def test_a_killed_attack_goes_on_to_the_same_files(run: Path, tmp_path: Path):
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    attack(whole, attacks=["inversion"], **TOOLS)
    stops = iter([3, 9, 6])
    drawn: list[str] = []

    class Stopped(Exception):
        pass

    def ticking(limit: float) -> Any:
        count = 0

        def tick(stage: str, done: int, total: int) -> None:
            nonlocal count
            count += 1
            drawn.append(stage)
            if count >= limit:
                raise Stopped

        return tick

    for limit in stops:
        with pytest.raises(Stopped):
            attack(run, attacks=["inversion"], tick=ticking(limit), **TOOLS)
    attack(run, attacks=["inversion"], tick=ticking(10**9), **TOOLS)
    assert contents(run / "attacks") == contents(whole / "attacks")
    assert verify(run) == []


def test_nothing_is_drawn_twice(run: Path, monkeypatch: pytest.MonkeyPatch):
    counted = []
    draw = carry_out.draw_attempts

    def counting(victim: Any, found: Any, attempts: Any) -> Any:
        counted.extend(attempts)
        if len(counted) > 7:
            raise KeyboardInterrupt
        return draw(victim, found, attempts)

    monkeypatch.setattr(carry_out, "draw_attempts", counting)
    with pytest.raises(KeyboardInterrupt):
        attack(run, attacks=["completion"], **TOOLS)
    begun = {path.name for path in (run / "attacks/completion/pictures/after").iterdir()}
    assert "attacks/completion is not finished: unlearnkit attack continues it" in check(run)[1]
    stopped, counted[:] = len(counted), []
    monkeypatch.setattr(carry_out, "draw_attempts", lambda v, f, a: counted.extend(a) or draw(v, f, a))
    figures = attack(run, attacks=["completion"], **TOOLS)["completion"]
    asked = sum(one[side]["n"] for one in figures["arms"].values() for side in ("after", "control"))
    assert len(counted) == asked - len(begun)
    assert 0 < len(begun) < stopped


def test_another_plan_is_refused(run: Path):
    attack(run, attacks=["probe"], **TOOLS)
    with pytest.raises(InputError, match=r"begun with another plan \(seed differs\)"):
        attack(run, attacks=["probe"], seed=1, **TOOLS)
    with pytest.raises(InputError, match="budget 'quik' is unknown"):
        attack(run, budget="quik", **TOOLS)
    with pytest.raises(InputError, match="attack 'sdedi' is unknown"):
        attack(run, attacks=["sdedi"], **TOOLS)
    with pytest.raises(InputError, match="belong to --base"):
        attack(run, concepts=[Concept("cat")], **TOOLS)
    with pytest.raises(InputError, match="is not the canvas: name a classifier"):
        attack(run)
    with pytest.raises(InputError, match="no finished run"):
        attack(run / "evaluation", **TOOLS)


def test_a_model_is_attacked_beside_its_base(run: Path, tmp_path: Path):
    how: dict[str, Any] = {"base": str(saved.folder()), "concepts": [Concept("cat")], "out": tmp_path / "out"}
    figures = attack(run / "pipeline", attacks=["inpainting"], **how, **TOOLS)
    assert figures["inpainting"]["arms"].keys() == {"own prompt", "no prompt"}
    ours = attack(run, attacks=["inpainting"], **TOOLS)
    assert figures["inpainting"]["arms"] == ours["inpainting"]["arms"]
    with pytest.raises(InputError, match="there is nothing to attack"):
        attack(saved.folder(), attacks=["inpainting"], **how, **TOOLS)
    with pytest.raises(InputError, match="needs --concept"):
        attack(run / "pipeline", base=str(saved.folder()), **TOOLS)


def test_the_dry_run_names_every_attack(run: Path):
    rows = {one.name: one for one in plan(run)}
    assert set(rows) == set(ATTACKS)
    assert rows["probe"].pictures == 2  # of the concept, which all attacks and their controls share
    assert rows["inversion"].pictures == 2 * 4 * 3
    assert all(one.seconds >= 0 and not one.why for one in rows.values())


def test_the_canvas_has_a_model_that_never_knew_cats():
    model = load("canvas")
    (one,) = targets(model, {}, Request((Concept("kitten"),)))
    assert one.seen_as == "cat"
    assert one.never_knew is not None
    assert one.facts()["control"]["kind"] == "never knew"
    assert one.shows is not None
    before = model.fingerprint()
    victims = one.victims(TINY, 0, Path("nowhere"))
    with victims["control"].edited() as other:
        assert other.fingerprint() != before
    (other_target,) = targets(model, {}, Request((Concept("dog"),)))
    assert other_target.never_knew is None
    assert other_target.facts()["control"]["kind"] == "unrelated concept"


def test_a_control_is_computed_once_for_all_edits(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = load(saved.folder())
    twin = {name: value.detach() * 1.5 for name, value in model.weights("xattn").items()}
    searched: list[str] = []
    attack_ = find("inpainting")
    search = type(attack_).search

    def counted(self: Any, victim: Any) -> Any:
        searched.append("control" if victim.applied is twin else "after")
        return search(self, victim)

    monkeypatch.setattr(type(attack_), "search", counted)
    edits = [{n: v * scale for n, v in twin.items()} for scale in (0.9, 0.8)]
    how: dict[str, Any] = {"budget": TINY, "seed": 3}
    both = []
    for number, edit in enumerate(edits):
        target = carry_out.Target(model, Concept("cat"), edit, "cat", never_knew=twin)
        folder = tmp_path / str(number) / "attacks" / "inpainting"
        carry_out.carry_out(folder, attack_, target, saved.tools(), **how)
        both.append(contents(folder))
    assert searched == ["after", "control", "after"]
    controls = [{n: h for n, h in one.items() if "control/" in n} for one in both]
    assert controls[0] == controls[1] != {}
    assert both[0]["after/found.safetensors"] == both[1]["after/found.safetensors"]  # the base's own pictures
    third = dataclasses.replace(target, never_knew={n: v * 2 for n, v in twin.items()})
    carry_out.carry_out(tmp_path / "third", attack_, third, saved.tools(), **how)
    assert len(searched) == 5  # another model that never knew it is another control


# the figures


def test_newcombes_interval_is_that_of_his_paper():
    one = newcombe(56, 70, 48, 80)  # Newcombe 1998b, table II, method 10, cases (a), (c) and (g)
    assert [round(each, 4) for each in (one.value, one.low, one.high)] == [0.2, 0.0524, 0.3339]
    one = newcombe(6, 7, 2, 7)
    assert [round(each, 4) for each in (one.low, one.high)] == [0.0582, 0.8062]
    one = newcombe(10, 10, 0, 10)
    assert [round(each, 4) for each in (one.low, one.high)] == [0.6075, 1.0]


def rows(after: int, control: int, n: int = 50, arm: str = "arm") -> list[dict[str, Any]]:
    return [
        {"side": side, "arm": arm, "shows": i < k}
        for side, k in (("after", after), ("control", control))
        for i in range(n)
    ]


def test_an_arm_whose_control_finds_it_is_not_counted():
    figures = arm_figures(rows(30, 5) + rows(50, 6, arm="other"))
    assert figures["arm"].counted
    assert not figures["other"].counted
    assert headline(figures) == "arm"
    assert figures["arm"].difference.value == pytest.approx(0.5)
    alone = arm_figures([row for row in rows(1, 1) if row["side"] == "after"])
    assert alone["arm"].control is None
    assert not alone["arm"].counted
    assert headline(alone) is None


GROUPS = {name: find(name).group for name in ("wording", "inversion", "probe")} | {"relearn": "relearning"}


def case(name: str, after: int, control: int = 0, n: int = 50) -> AttackFigures:
    own, none = Interval(0.2, 0.19, 0.21), Interval(0.1, 0.09, 0.11)
    known = {"own caption, after": own, "no caption, after": none}
    return AttackFigures(name, True, arm_figures(rows(after, control, n)), {"after": known, "control": known})


def grade(*cases: AttackFigures, before: str = "generalises") -> tuple[str, str]:
    name, reasons = graded(before, cases, GROUPS)
    return name, "; ".join(reasons)


def test_the_ladder_of_grades():
    steps = [case(name, 0) for name in ("wording", "inversion", "relearn")]
    probe = dataclasses.replace(case("probe", 0), arms={})
    assert grade() == ("generalises", "not attacked with wording")
    assert grade(steps[0]) == ("resists prompts", "not attacked with inversion")
    assert grade(*steps[:2]) == ("resists embeddings and latents", "not attacked with relearn")
    assert grade(*steps) == ("resists relearning", "not attacked with probe")
    assert grade(*steps, probe) == ("gone", "")
    assert grade(*steps, probe, before="suppressed")[0] == "suppressed"
    assert list(LADDER)[-1] == "gone"


def test_reasons_against_a_grade():
    assert "20 of 50, control 0 of 50, so up to 5" in grade(case("wording", 20))[1]
    assert "every control of wording and prompts is above 10%" in grade(case("wording", 20, 20))[1]
    alone = arm_figures([row for row in rows(0, 0) if row["side"] == "after"])
    assert grade(dataclasses.replace(case("wording", 0), arms=alone))[1] == "wording has no control"
    assert "so up to 12 points" in grade(case("wording", 0, n=28))[1]  # too few pictures to bound it
    assert grade(case("wording", 3, 3))[0] == "generalises"  # 6 % each, but the difference may be 12 points
    losses = {
        "after": {
            "own caption, after": Interval(0.1, 0.09, 0.12),
            "no caption, after": Interval(0.2, 0.15, 0.3),
        },
        "control": {
            "own caption, after": Interval(0.2, 0.18, 0.21),
            "no caption, after": Interval(0.2, 0.1, 0.3),
        },
    }
    knows = AttackFigures("probe", True, {}, losses)
    steps = [case(name, 0) for name in ("wording", "inversion", "relearn")]
    name, why = grade(*steps, knows)
    assert name == "resists relearning"
    assert "with own caption its pictures are denoised with a loss of 0.1" in why
    assert "no caption" not in why
    unlike = dataclasses.replace(knows, never_knew=False)
    assert grade(*steps, unlike)[1] == "there is no model that never knew it"


def lesson(after: Sequence[int], control: Sequence[int], benign: int = 0) -> AttackFigures:
    """Relearning with these counts, of 50, after 5, 10 and 20 steps."""
    steps = zip((5, 10, 20), after, control, strict=True)
    every = [row for n, a, c in steps for row in rows(a, c, arm=f"low rank, {n} steps")]
    return AttackFigures(
        "relearn", True, arm_figures(every + rows(benign, 0, arm="other pictures, 40 steps")), {}
    )


def test_relearning_is_graded_by_its_steps():
    steps = [case(name, 0) for name in ("wording", "inversion")]
    assert grade(*steps, lesson([0, 40, 50], [0, 30, 50]))[0] == "resists relearning"  # both after 10 steps
    name, why = grade(*steps, lesson([25, 40, 50], [0, 30, 50]))
    assert name == "resists embeddings and latents"
    assert "half of the pictures show it after 5 steps, in the control after 10" in why
    assert "in the control after more than 20" in grade(*steps, lesson([0, 0, 25], [0, 0, 24]))[1]
    assert "other pictures, 40 steps: 5 of 50" in grade(*steps, lesson([0, 0, 0], [0, 0, 50], benign=5))[1]


def test_budgets_are_large_enough_to_grade():
    for one in BUDGETS.values():
        assert dataclasses.asdict(newcombe(0, one.pictures, 0, one.pictures))["high"] <= 0.10


# the report


def test_a_report_shows_what_brings_it_back(run: Path):
    report(run)
    without = (run / "report.html").read_text()
    assert "What brings it back" not in without
    attack(run, attacks=["sdedit", "probe"], **TOOLS)
    (older,) = check(run)[1]
    assert older == "report.html is older than an attack: unlearnkit report writes it again"
    report(run)
    html, facts = (run / "report.html").read_text(), json.loads((run / "report.json").read_text())
    assert "What brings it back" in html
    assert "Noised pictures" in html
    assert "Denoising loss" in html
    assert "attacks only add to" in facts["attacks"]["cat"]["reasons"][0]  # a toy's evaluation shows nothing
    assert check(run) == ([], [])
    path = run / "attacks" / "sdedit" / "rows.jsonl"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(InputError, match="changed later"):
        report(run)


def test_the_pictures_of_others_are_covered_and_no_prompt_is_printed(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(carry_out, "same", lambda seen, word: True)
    attack(run, attacks=["wording"], **TOOLS)
    report(run)
    panel = (run / "report.html").read_text().partition('id="attacks"')[2]
    assert (
        panel.count('class="stage still hidden"')
        == panel.count('class="curtain"')
        == panel.count("<figure>")
        > 0
    )
    found = json.loads((run / "attacks/wording/after/found.json").read_text())["attempts"]
    assert not [one["prompt"] for one in found if one["prompt"] and one["prompt"] in panel]


def test_runs_are_compared_under_attack(run: Path, tmp_path: Path):
    second = Path(shutil.copytree(run, tmp_path / "second"))
    assert "Under attack" not in compare([run, second], tmp_path / "none").read_text()
    attack(run, attacks=["inpainting"], **TOOLS)
    page = compare([run, second], tmp_path / "some").read_text()
    assert "Under attack" in page
    facts = json.loads((tmp_path / "some" / "compare.json").read_text())["attacked"]
    assert facts["grades"] == [{"cat": "not shown"}, {}]
    (cells,) = [cells for title, cells in facts["rows"].items() if "no prompt" in title]
    assert cells[0]["after"]["n"] == 3
    assert cells[1] is None


# chains and the command


def test_a_chain_is_attacked_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(BUDGETS, "quick", TINY)
    folder, tools = tmp_path / "chain", saved.tools()
    monkeypatch.setattr(of_chain, "open_evaluators", lambda project: tools)
    chain.init(folder, str(saved.folder()), method="uce", pictures=1)
    with pytest.raises(InputError, match="erases nothing"):
        chain.attack(folder)
    chain.add(folder, "cat", evaluators=tools)
    chain.add(folder, "dog", evaluators=tools)
    assert "What brings it back" not in chain.report(folder).read_text()
    figures = chain.attack(folder, attacks=["inpainting"])
    assert set(figures) == {"inpainting-cat", "inpainting-dog"}
    assert chain.verify(folder) == [], "the report is older than the attacks, and says nothing wrong"
    page = chain.report(folder).read_text()
    assert page.count("Half of a picture") == 2 and "Under attack" not in page
    listed = json.loads((folder / "report.json").read_text())["attacks"]
    assert {name: one["attacks"][0]["folder"] for name, one in listed.items()} == {
        "cat": "inpainting-cat",
        "dog": "inpainting-dog",
    }
    assert chain.verify(folder) == []
    (folder / "attacks/inpainting-dog/rows.jsonl").unlink()
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        chain.report(folder)
    (line,) = chain.verify(folder)
    assert "rows.jsonl" in line
    shutil.rmtree(folder / "attacks/inpainting-dog")
    assert any("do not follow" in line for line in chain.verify(folder))


def test_weights_with_a_history_are_attacked_as_constants():
    model = load(saved.folder())
    names = list(model.weights("xattn"))
    history = {name: one.clone().requires_grad_() * 0.5 for name, one in model.values(names).items()}
    (target,) = targets(model, history, Request((Concept("cat"),)))
    assert isinstance(target.applied, dict)
    assert not any(one.requires_grad for one in target.applied.values())


SELF_TEST = ["attack", "--self-test", "--attack"]


@pytest.mark.slow
@pytest.mark.skipif(not (WEIGHTS / "never-knew").is_dir(), reason="no weights are shipped yet")
@pytest.mark.parametrize("name", EXPECTED)
def test_the_self_test_shows_what_a_model_falls_to(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*SELF_TEST, name])
    said = capsys.readouterr()
    assert int(caught.value.code or 0) == 0, said
    assert f"right  {EXPECTED[name]} falls to {name}" in said.out


def test_an_attack_without_a_case_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main([*SELF_TEST, "probe"])
    assert (caught.value.code, capsys.readouterr().err.count("\n")) == (2, 1)


def test_every_attack_has_a_positive_control_or_cannot():
    assert set(EXPECTED.values()) == {"filter", "half an edit"}
    assert set(ATTACKS) - set(EXPECTED) == {"probe", "inpainting", "text_free", "relearning"}


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]):
    def said(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            main(["attack", *words])
        both = capsys.readouterr()
        return int(caught.value.code or 0), both.out + both.err

    code, text = said(str(run), "--dry-run")
    assert code == 0
    assert text.count(" s ") >= len(ATTACKS)
    assert said()[1].startswith("the run is missing")
    assert said("--self-test", str(run))[0] == 2
    code, text = said(str(run), "--attack", "sdedti")
    assert (code, text.count("\n")) == (2, 1)
    assert "did you mean 'sdedit'" in text
