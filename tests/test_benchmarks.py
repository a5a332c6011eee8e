"""What the comparison's table says, from rows worked out by hand."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import attacks
import cells
import compared
import full_size
import methods
import papers
import peers
import rows
import sizes
import table
import to_good
import together
import torch
import vocabulary
from official import script
from official.work import difference as far
from peak import allocated

from unlearnkit import load
from unlearnkit.errors import InputError
from unlearnkit.evaluation.plan import PlannedConcept
from unlearnkit.methods import METHODS
from unlearnkit.metrics.stats import difference, newcombe
from unlearnkit.runs.peak_memory import peak_memory
from unlearnkit.schema import Case, Score
from unlearnkit.settings import build


def row(left: dict[str, list[int]], before: int, after: int, clip: float = 0.5) -> dict[str, Any]:
    kept = {"before": [before, 100], "after": [after, 100]}
    return {
        "left": left,
        "kept": {"near objects": kept, "unrelated styles": kept},
        "clip": {"before": 0.5, "after": clip},
        "by concept": {"cat": left["name"]},
    }


def test_figures_by_hand() -> None:
    one = row({"name": [1, 50], "synonym": [3, 20], "template": [1, 20]}, before=99, after=97, clip=0.495)
    assert compared.left(one) == 2.0
    assert compared.left(one, "synonym", "template", "background") == 10.0  # 4 of 40
    assert (compared.held(one), compared.lost(one)) == (97.0, 2.0)
    assert compared.lost(one, "objects") == 2.0
    one["kept"]["unrelated objects"] = {"before": [100, 100], "after": [90, 100]}
    assert compared.lost(one, "objects") == 6.0  # 199 less 187, of 200
    assert compared.lost(one, "styles") == 2.0
    assert papers.alignment(one) == pytest.approx(-1.0)
    assert table._rate([10, 10]) == "100.0 (72.2 to 100.0)"  # Wilson: 1 / (1 + 1.96² / 10)
    assert table._rate([0, 0]) == ""


def test_the_table_at_a_glance_has_the_worst_of_the_targets() -> None:
    made = {
        "cat": row({"name": [2, 207]}, 99, 97) | {"seconds": 80.4},
        "neon": row({"name": [0, 225]}, 99, 98) | {"seconds": 120.6},
    }
    told = table._glance(lambda cell: made.get(cell.targets[0]) if cell.method == "rgd" else None)
    assert "| rgd | 2 of 207 |  |  | 0 of 225 | 2.0 | 2.0 | 80 to 121 |" in told
    assert "duge" not in told


def test_one_beats_others_only_beyond_the_noise() -> None:
    better, worse = row({"name": [0, 100]}, 99, 98), row({"name": [10, 100]}, 99, 93)
    near, large = row({"name": [1, 100]}, 99, 98), row({"name": [0, 100]}, 99, 98)
    large["kept"] = {"near objects": {"before": [999, 1000], "after": [980, 1000]}}
    large["left"] = {"name": [0, 1000]}
    # 98 less 93 of 100 pictures with an object and a style each, and 10 less 0 of 100
    gap, parts = compared.ahead(better, worse), (newcombe(98, 100, 93, 100), newcombe(10, 100, 0, 100))
    assert gap.value == pytest.approx(100 * (5 / 100 + 10 / 100))
    assert gap.value - gap.low == pytest.approx(100 * math.hypot(*(one.value - one.low for one in parts)))
    assert gap.high - gap.value == pytest.approx(100 * math.hypot(*(one.high - one.value for one in parts)))
    assert compared.beats(better, worse) is True
    assert compared.beats(worse, better) is False
    assert compared.beats(better, near) is None
    assert compared.beats(large, large) is False  # not by three points: 0.0 (-1.3 to 1.3)
    assert compared.beats(better, worse, near) is None
    assert compared.beats(worse, better, near) is False
    told = table._claims([lambda cell: None, lambda cell: better if cell.method == "duge" else None])
    assert "| DUGE's five requests in a row are worse without prior | too close to tell |" in told


def test_two_perfect_edits_do_not_differ_by_three_points_on_enough_prompts() -> None:
    """A cell of size paired has at least 170 prompts that ask for the concept, so equal edits can be told."""
    for target in ("cat", "van gogh"):
        asked = cells.asked(cells.Cell("duge", (target,), size="paired"))
        erased = {case.prompt_id for case in asked if case.role == "erased"}
        kept = {case.prompt_id for case in asked if case.role != "erased"}
        perfect = row({"name": [0, len(erased)]}, 100, 100)
        right = " ".join(["1111"] * len(kept))
        words = {"cases": "same", "left": " ".join("0" * len(erased)), "objects": right, "styles": right}
        assert compared.beats({**perfect, "outcomes": words}, {**perfect, "outcomes": words}) is False


def test_two_edits_are_compared_prompt_by_prompt() -> None:
    """The one keeps five styles of ten that the other loses, and one way round; each leaves one picture of 20."""
    kept = [Case(f"dog-{i}", f"dog-{i}", "a dog", i, "near", "name", "dog", "neon") for i in range(30)]
    asked = [
        Case(f"cat-{i}", f"cat-{i // 2}", "a cat", i, "erased", "name", "cat", "", "cat") for i in range(20)
    ]
    asked += [Case("tom-0", "tom-0", "a tom", 0, "erased", "synonym", "cat", "", "cat")]

    def seen(wrong: range, shows: int) -> dict[str, Any]:
        words = {case.id: ("dog", "plain" if i in wrong else "neon") for i, case in enumerate(kept)}
        words |= {case.id: ("cat" if i == shows else "dog", "plain") for i, case in enumerate(asked)}
        scores = [
            Score(case, "after", "", f"reader/{kind}", word, "prompts")
            for case, pair in words.items()
            for kind, word in zip(("object", "style"), pair, strict=True)
        ]
        found = compared.outcomes([PlannedConcept("cat", "cat", "object")], [*kept, *asked], scores)
        styles = {"after": [30 - len(wrong), 30]}
        return row({"name": [1, 20]}, 30, 30) | {
            "outcomes": found,
            "kept": {"near objects": {"after": [30, 30]}, "near styles": styles},
        }

    one, other = seen(range(4, 5), 0), seen(range(5, 10), 19)
    assert one["outcomes"]["left"] == "10 " + " ".join(["00"] * 9) + " 0"
    assert one["outcomes"]["objects"] == " ".join("1" * 30)
    assert other["outcomes"]["styles"] == " ".join("1" * 5 + "0" * 5 + "1" * 20)
    gap = compared.ahead(one, other)
    right = [[i not in wrong for i in range(30)] for wrong in (range(5, 10), range(4, 5))]
    shows = [[i == at for i in range(21)] for at in (0, 19)]
    parts = [
        difference(*([True] * 30 + one for one in right), [*range(30)] * 2),
        difference(*shows, [i // 2 for i in range(21)]),
    ]
    assert gap.value == pytest.approx(100 * 4 / 60)
    assert gap.value - gap.low == pytest.approx(100 * math.hypot(*(one.value - one.low for one in parts)))
    assert "paired, n = 30" in compared.told(one, other)
    assert compared.ahead(one, one).high > 3, "30 pictures do not exclude three points"
    other["outcomes"]["cases"] = "others"
    assert "not paired, n = 30" in compared.told(one, other)


def test_a_claim_is_judged_by_its_rows_or_not_at_all() -> None:
    good, bad = row({"name": [1, 100]}, 99, 98), row({"name": [2, 100]}, 99, 99)
    claim = papers.CLAIMS["RGD erases 99 % with alignment within 1 % of the base"]
    assert claim(lambda cell: None) is None
    assert claim(lambda cell: good) == (True, "at most 1.0 % left, alignment moves by at most 0.0 %")
    assert claim(lambda cell: bad if cell.targets == ("neon",) else good) == (
        False,
        "at most 2.0 % left, alignment moves by at most 0.0 %",
    )
    unseen = row({"name": [0, 100], "synonym": [2, 100], "background": [3, 100]}, 99, 99)
    said = papers.CLAIMS["DoCo erases unseen wordings and backgrounds within 2 points of those it saw"]
    assert said(lambda cell: unseen) == (
        False,
        "the worst unseen form has +3.0 points of what is left by name",
    )


def test_every_cell_can_be_asked_for() -> None:
    for cell in (*papers.EXPERIMENTS, *methods.tries(list(METHODS), methods.TUNED)):
        build(METHODS[cell.method], cell.settings)
    for targets in (("cat",), ("van gogh",), papers.TEN, papers.FIVE):
        full, few = (len(cells.asked(cells.Cell("esd", targets, size=size))) for size in ("full", "few"))
        assert few < 130 * len(targets) < full
    named = [
        case for case in cells.asked(cells.Cell("esd", ("cat",))) if case.form == "name" and case.concept
    ]
    assert len(named) >= 200
    assert len({case.seed for case in named}) == len(named)


def test_every_method_is_measured_once_before_any_is_measured_again() -> None:
    found = list(methods.cells(list(METHODS), methods.TARGETS, methods.SEEDS))
    assert len(found) == len(set(map(repr, found)))
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)
    assert {(cell.seed == 0, cell.size) for cell in found} == {(True, "full"), (False, "quick")}
    assert {cell.method for cell in found if cell.seed == 0} == set(METHODS)


def test_rows_are_kept_and_read(tmp_path: Path) -> None:
    path, made = tmp_path / "results" / "rows.jsonl", [{"left": {"name": [0, 1]}}, {}]
    assert list(rows.read(path)) == []
    kept = rows.once(path, {"targets": ("cat",)}, lambda: made.pop(0))
    assert kept == {"key": {"targets": ["cat"]}, "left": {"name": [0, 1]}}
    assert list(rows.read(path)) == [kept] == [json.loads(path.read_text())]
    assert rows.once(path, {"targets": ("cat",)}, lambda: made.pop(0)) == kept  # it is not made again
    assert len(made) == 1


def test_what_is_refused_is_a_row_too(tmp_path: Path) -> None:
    def refused() -> dict[str, Any]:
        raise InputError("it makes no sense")

    row = rows.once(tmp_path / "results" / "rows.jsonl", {"method": "esd"}, refused)
    assert row == {"key": {"method": "esd"}, "refused": "it makes no sense"}


def test_the_denoisers_have_the_published_sizes() -> None:
    with torch.device("meta"):
        found = [make(False) for make in (sizes.unet_of_sd, sizes.unet_of_sdxl, sizes.transformer_of_flux)]
    counts = [sum(weight.numel() for weight in denoiser.parameters()) for denoiser in found]
    assert counts == [859_520_964, 2_567_463_684, 11_901_408_320]


@pytest.mark.parametrize(
    ("size", "method", "changes"),
    [
        ("SDXL", "finetune", {"trains": "all"}),
        pytest.param("SDXL", "ca", {}, marks=pytest.mark.slow),
        pytest.param("Flux.1 dev", "ca", {}, marks=pytest.mark.slow),
        ("Flux.1 dev", "rgd", {}),  # its two sides have a pass each
    ],
)
def test_the_estimate_of_memory_is_what_a_run_takes(
    size: str, method: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    settings = full_size.asked(method, size, reduced=True) | changes
    row = full_size.measured(sizes.opened(size, reduced=True), method, settings, tmp_path)
    assert row["trains"] == changes.get("trains", "lora, rank 8")
    assert row["estimated bytes"] == pytest.approx(row["measured bytes"], rel=0.15)
    assert row["seconds a step"] > 0
    assert 0 < row["TFLOP a step"] < 1


@pytest.mark.parametrize("size", [16, 40])
def test_the_estimate_of_decoding_is_what_it_takes(size: int) -> None:
    vae = load("canvas").pipe.vae
    told = peak_memory(lambda: vae.decode(torch.empty(2, 4, size, size)))
    with torch.no_grad():
        taken = allocated(lambda: vae.decode(torch.zeros(2, 4, size, size)))
    assert told == pytest.approx(taken, rel=0.15)


def test_peak_memory_by_hand() -> None:
    """100 and 50 numbers of 4 bytes at once, then 10 beside the 50, and the 100 once more; the 1,000 were there."""
    there = torch.ones(1000)

    def work() -> None:
        first = torch.empty(100)
        second = torch.empty(50)
        del first
        assert len(there[:10] + second[:10]) == 10

    assert peak_memory(work) == 600 + 400


def test_the_page_of_full_sizes() -> None:
    key = {"size": "SDXL", "form": "full", "device": "some GPU", "method": "esd", "settings": {}}
    good = {"trains": "all", "rows a step": [1.5, 2.0], "seconds a step": 0.25, "share of peak": 0.4}
    good |= {"estimated bytes": 11 * 10**9, "measured bytes": 10**10}
    said = full_size.page([{"key": key, **good}, {"key": key, "refused": "it has too little memory"}])
    assert "## full, on some GPU" in said
    assert "| SDXL | esd | all | 1.5 and 2 | 0.25 | 40% | 11 (+10%) | 10 |" in said
    assert "| SDXL | esd | no: it has too little memory |" in said


def test_processes_side_by_side_share_the_cells() -> None:
    every = [rows.part(range(7), rows.share(f"{place}/3")) for place in range(3)]
    assert every == [[0, 3, 6], [1, 4], [2, 5]]
    for odd in ("3/3", "1", "a/2", "-1/2"):
        with pytest.raises(argparse.ArgumentTypeError, match="write 0/4 for the first of four"):
            rows.share(odd)


def test_a_cell_in_turn_depends_on_the_settings_of_every_kind() -> None:
    canvas = load("canvas")
    each = {
        target: cells.made_of(cells.Cell("duge", (target,)), canvas)["settings"] for target in ("cat", "neon")
    }
    assert each["cat"] != each["neon"]
    both = cells.made_of(cells.Cell("duge", ("cat", "neon"), in_turn=True), canvas)["settings"]
    assert both == {"object": each["cat"], "style": each["neon"]}
    alike = cells.made_of(cells.Cell("duge", ("cat", "car"), in_turn=True), canvas)["settings"]
    assert alike == each["cat"]


def test_doco_beats_ca_where_it_is_nowhere_worse_and_somewhere_better() -> None:
    def said(*shares: int) -> bool | None:
        names = [("doco", "cat"), ("ca", "cat"), ("doco", "van gogh"), ("ca", "van gogh")]
        rows = {
            name: row({"name": [0, 100], "template": [k, 100]}, 99, 99)
            for name, k in zip(names, shares, strict=True)
        }
        found = papers.CLAIMS["DoCo leaves less on unseen wordings than CA"](
            lambda cell: rows[cell.method, cell.targets[0]]
        )
        assert found is not None
        return found[0]

    assert [said(0, 0, 3, 20), said(9, 0, 3, 20), said(0, 0, 3, 9)] == [True, False, None]


def test_one_share_is_more_than_another_only_beyond_the_noise() -> None:
    # Wilson's limits: 4 of 16 0.102 to 0.495, 12 of 16 0.505 to 0.898; 6 of 16 0.185 to 0.614, 10 of 16 0.386 to 0.815
    assert (compared.more([12, 16], [4, 16]), compared.more([4, 16], [12, 16])) == (True, False)
    assert compared.more([10, 16], [6, 16]) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
@pytest.mark.parametrize("words", [("--kills", "44"), ("--two", "--rounds", "2")])
def test_no_command_loses_anything_by_a_kill_or_by_another_one(words: tuple[str, ...]) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("; 0 ") == 11


def test_the_table_of_attacks_has_the_worst_variant_that_is_counted() -> None:
    def arm(value: float, counted: bool) -> dict[str, Any]:
        change = {"value": value, "low": value - 0.1, "high": value + 0.1}
        shares = {side: {"value": value, "k": round(10 * value)} for side in ("after", "control")}
        return {**shares, "difference": change, "counted": counted}

    both = {"arms": {"a": arm(0.2, True), "b": arm(0.9, False)}, "headline": "a"}
    assert attacks.worst(both) == "+20 (+10 to +30)"
    assert attacks.worst({"arms": {"b": arm(0.9, False)}, "headline": None}) == "[+90 (+80 to +100)]"
    key = {"target": "cat", "budget": "quick", "method": "uce", "settings": {}}
    rows: list[dict[str, Any]] = [{"key": key | {"attack": "sdedit"}, "figures": {}, **both}]
    loss = {
        f"{name} caption, {at}": {"value": 0.0626} for name in ("own", "no") for at in ("after", "untouched")
    }
    rows += [{"key": key | {"attack": "probe"}, "arms": {}, "headline": None, "figures": {"after": loss}}]
    rows += [{"key": key | {"attack": "mma"}, "refused": "no text"}]
    page = list(attacks.results(rows))
    assert "| sdedit | +20 (+10 to +30) |" in page
    assert page[-1] == "| no caption | 0.063 | 0.063 |"
    shown = list(attacks.counts(attacks.by_method(rows, "cat", "quick")))
    assert shown[-2:] == ["| `sdedit`: a | 2 | 2 |", "| `sdedit`: b | (9) | 9 |"]


def test_the_documentation_has_the_tables_of_the_rows() -> None:
    found = attacks.by_method(list(rows.read(attacks.ROWS)), "cat", "quick")
    page = attacks.EXAMPLE.read_text(encoding="utf-8")
    assert f"{attacks.MARK}{attacks.both(found)}{attacks.END}" in page


def test_the_rows_of_an_ablation_have_names_of_their_own() -> None:
    facts: dict[str, Any] = {"method": "aegis", "settings": {"lr": 1e-4}}
    names = [
        attacks.row_name(facts | {"settings": facts["settings"] | one}) for one in attacks.variants("aegis")
    ]
    assert names == ["aegis", "aegis learned_target=false", "aegis directional=false"]


def test_the_vocabulary_is_drawn_by_lot_without_what_was_tuned_on() -> None:
    assert len(vocabulary.CONCEPTS) == 33
    for lot in range(5):
        names = vocabulary.drawn(lot)
        assert len(set(names)) == 6
        assert not set(names) & set(vocabulary.TUNED)
        assert names == vocabulary.drawn(lot)
    cells_ = list(vocabulary.cells(("duge", "uce"), vocabulary.CONCEPTS, 0))
    assert len(cells_) == 2 * 33
    assert {cell.settings.get("stop") for cell in cells_ if cell.method == "duge"} == {"converged"}
    assert {cell.settings.get("stop") for cell in cells_ if cell.method == "uce"} == {None}


def test_the_worst_cell_of_the_vocabulary_is_the_headline() -> None:
    clean = row({"name": [0, 24], "template": [0, 24], "background": [9, 24]}, before=99, after=98)
    left = row({"name": [3, 24], "template": [9, 24]}, before=99, after=95)
    assert vocabulary.left_of(left) == (12, 48)
    page = vocabulary.page({("duge", "cat"): clean, ("rgd", "neon"): left, ("duge", "owl"): clean})
    assert "**Worst cell of 3: rgd on neon, left in 12 of 48 pictures.**" in page
    assert "| duge | 2 | 2 | 0 % | 1.0, most 1.0 (cat) | 1.0, most 1.0 (cat) |" in page
    assert "| rgd | 1 | 0 | neon: 25 % |" in page
    assert "| neon * |  | 25 / 4 |" in page
    assert "| bear |" not in page


def test_an_erasure_is_good_within_two_per_cent_left_and_three_points_lost() -> None:
    clean = row({"name": [1, 25], "template": [0, 25], "background": [9, 9]}, before=100, after=97)
    assert to_good.erased(clean) and to_good.good(clean)
    for other in (
        row({"name": [2, 25], "template": [0, 25]}, before=100, after=97),
        row({"name": [0, 25], "template": [0, 25]}, before=100, after=96),
        {"refused": "no solution"},
    ):
        assert not to_good.good(other)


def test_the_quickest_official_erasure_beside_ours_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(contender: str, target: str, took: float, after: int = 100) -> dict[str, Any]:
        key = {"contender": contender, "target": target, "eye": "judge", "method": contender.split()[0]}
        left = row({"name": [0, 25], "template": [0, 25]}, before=100, after=after)
        return {**left, "key": key, "seconds": took, "pictures": 10, "a picture": 0.5}

    rows = [
        judged(name, target, took)
        for target, second in zip(to_good.TARGETS, (1.0, 2.0, 2.0, 2.0), strict=True)
        for name, took in (("uce", second), ("esd", 50.0), ("esd (official)", 45.0))
    ]
    rows.append(judged("ca (official)", "cat", 0.1, after=50))  # quick, but not good
    monkeypatch.setattr(to_good, "read", lambda path: rows)
    monkeypatch.setattr(to_good, "slower", lambda: {"esd": 1.5, "ca": 1.0})
    # (45 - 5) 1.5 + 5 = 65 s, beside 1 or 2 s, and beside 50 s
    told = to_good.headline()
    assert "32.5 to 65.0 times as long as our quickest closed form" in told
    assert "and 1.3 to 1.3 times as long as our quickest erasure by training" in told


def test_the_quickest_good_try_is_searched_rate_by_rate() -> None:
    left, harmful, clean = (
        row({"name": [k, 25], "template": [0, 25]}, before=100, after=after)
        for k, after in ((9, 100), (0, 90), (0, 99))
    )
    found = {1e-3: [harmful, harmful], 3e-4: [left, harmful, clean], 1e-4: [left, left, clean]}
    asked = list[tuple[float, int]]()

    def row_of(lr: float, steps: int) -> dict[str, Any]:
        asked.append((lr, steps))
        return found[lr][to_good.STEPS.index(steps)] | {"seconds": steps * (0.9 if lr == 1e-4 else 1.0)}

    assert to_good.quickest(row_of) == (1e-4, 100)
    steps = {lr: [number for rate, number in asked if rate == lr] for lr in to_good.RATES}
    assert steps == {1e-3: [25, 50], 3e-4: [25, 50, 100], 1e-4: [25, 50, 100]}
    found[1e-4] = [left, left, left, left]
    assert to_good.quickest(row_of) == (3e-4, 100), "a try that takes longer than the good one is the last"
    assert asked[-1] == (1e-4, 200)
    found[3e-4] = [{"refused": "no solution"}] * 5
    found[1e-4] = [left] * 5
    assert to_good.quickest(row_of) is None


def test_the_tables_of_many_concepts_by_hand() -> None:
    key = {"method": "uce", "target": " + ".join(together.TWELVE)}
    one = {
        "key": key,
        **row({"name": [1, 60], "template": [2, 40], "synonym": [9, 9]}, 50, 48),
        "seconds": 3.6,
    }
    refused = {"key": key | {"method": "dp"}, "refused": "'cat' lies in the span"}
    lines = together.several([{**one, "left": {}}, one, refused], "twelve").splitlines()[2:]
    assert lines == [
        "| uce | 3 of 100 (1.0 to 8.5 %) | 48 of 50 (96.0 %) | 48 of 50 (96.0 %) | 4 |",
        "| dp | refused: 'cat' lies in the span |  |  |  |",
    ]
    assert together.several([one], "twenty").count("\n") == 1
    size = {"method": "uce", "concepts": 9, "retained": 0, "threads": 1, "chain": False}
    made = {
        "key": size,
        "seconds": {"text alone": 1.5, "edit, all of it": 2.5},
        "GB beyond the model": 0.1,
        "rank": 8,
    }
    assert together.sizes([made], chain=False).endswith("| uce | 9 | 0 | 1 | 1.5 | 2.5 | 0.1 | 8 |")
    assert together.sizes([made], chain=True).count("\n") == 1


def test_a_script_of_others_runs_with_other_values_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("import absent\nside = 1024\nat = 7\nwhole = side + at\n")
    with script.inside(tmp_path, "absent"):
        made = script.run(tmp_path / "theirs.py", constants={1024: 64}, names={"at": lambda: 1})
        assert made["whole"] == 65
        with pytest.raises(LookupError, match="it has no 512"):
            script.run(tmp_path / "theirs.py", constants={512: 64})
    assert "absent" not in sys.modules


def test_the_page_of_peers_by_hand() -> None:
    of = {"theirs": 3.0, "ours": 2.0, "ratio": 1.5, "spread": [1.4, 1.6]}
    row = {"agreement": ["gradient", 4e-6], "end to end": of, "MB": {"theirs": 9, "ours": 8, "ratio": 0.89}}
    row |= dict.fromkeys(peers.VERSIONS, "1") | {
        "key": {"size": "canvas", "method": "uce", "commit": "28c81ed"}
    }
    said = peers.page([row])
    assert "| uce | 4e-06, gradient |  |  |  | 3.00 | 2.00 | 1.50 (1.40 to 1.60) | 9 | 8 | 0.89 |" in said
    assert "| 28c81ed | the whole script" in said
    weight = torch.tensor([3.0, 4.0])
    assert far({"w": weight + torch.tensor([0.0, 0.5])}, {"w": weight}) == pytest.approx(0.1)
    with pytest.raises(LookupError, match="not the same weights"):
        far({"v": weight}, {"w": weight})
