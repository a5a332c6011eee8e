"""The report and its verification, on a run of a toy model whose pictures a toy Eye has looked at."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import two

from saved import SCRIPT, tools
from unlearnkit.canvas import world
from unlearnkit.canvas.classifier import CanvasClassifier
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.evaluation import claims, plan
from unlearnkit.evaluation.compare import compare
from unlearnkit.evaluation.evaluate import evaluate_run
from unlearnkit.evaluation.folders import finished
from unlearnkit.evaluation.record import write_facts
from unlearnkit.evaluation.report import report
from unlearnkit.evaluation.verify import redraw, verify
from unlearnkit.io.locks import locked
from unlearnkit.metrics.evaluators import Evaluators, evaluators_of
from unlearnkit.model.edit import Edit
from unlearnkit.runs.images import save_png
from unlearnkit.runs.recipes import load_recipe


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


class Page(HTMLParser):
    """The tags of a page, and whether they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("li", "p", "td", "tr", "th") or self.open[-1] == tag:
            assert self.open.pop() == tag


def test_the_report_is_one_file_that_loads_nothing(run: Path) -> None:
    text = report(run).read_text()
    page = Page(text)
    assert page.open == []
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["'](?!data:|#)""", text)
    assert "url(" not in text
    assert SCRIPT not in text
    assert "&lt;script&gt;" in text
    assert sum(tag == "script" for tag, _ in page.seen) == 1
    policy = next(attrs["content"] for tag, attrs in page.seen if attrs.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    sliders = [attrs for tag, attrs in page.seen if tag == "input"]
    assert sliders
    assert all(attrs.get("aria-label") for attrs in sliders)
    assert all(attrs.get("alt") for tag, attrs in page.seen if tag == "img")
    assert sum(attrs.get("class") == "curtain" for _, attrs in page.seen) == len(sliders), (
        "own prompts are covered"
    )
    assert "What is not claimed" in text
    verdict = json.loads((run / "report.json").read_text())["evaluations"]["prompts-rows"]["verdict"]
    assert verdict["concepts"][0]["sentence"].split("“")[0] in text


def test_a_run_is_evaluated_on_more_than_one_suite(run: Path, evaluated: Path, tmp_path: Path) -> None:
    """Each has a folder of its own; report, verify and compare know them all."""
    file = tmp_path / "Own words.csv"
    file.write_text("prompt,role,object\nmy cat,erased,cat\nmy dog,near,dog\n")
    evaluate_run(run, suite="prompts", file=file, evaluators=lambda device: tools())
    first, second = (run / "evaluation" / name for name in ("prompts-own-words", "prompts-rows"))
    assert [folder.name for folder in finished(run)] == [first.name, second.name]
    text = report(run).read_text()
    assert Page(text).open == []
    assert "evaluated 2 times" in text
    for folder in (first, second):
        assert f'<h1 id="{folder.name}">' in text
        assert f'<a href="#{folder.name}">' in text
    assert verify(run) == []
    count, apart = redraw(run, 1.0)
    assert (count, apart) == (2 * (2 + 8), [])
    rows = (first / "rows.jsonl").read_text()
    (first / "rows.jsonl").write_text(rows.replace('"after"', '"before"', 1))
    assert verify(run) == ["evaluation/prompts-own-words/rows.jsonl was changed later"]
    (first / "rows.jsonl").write_text(rows)
    other = Path(shutil.copytree(run, tmp_path / "other"))
    compare([run, evaluated], tmp_path / "page")
    with pytest.raises(
        InputError, match=r"share the evaluations prompts-own-words, prompts-rows: .* --suite"
    ):
        compare([run, other], tmp_path / "page")
    compare([run, other], tmp_path / "page", suite="prompts-own-words")
    with pytest.raises(InputError, match=r"share no evaluation 'canvas' .*evaluate them alike"):
        compare([run, other], tmp_path / "page", suite="canvas")


def test_columns_are_checked_before_anything_is_opened(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("prompts,role\na cat,erased\n")
    words = ["--suite", "prompts", "--file", str(tmp_path / "rows.csv"), "--objects", "nowhere/at-all"]
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(run), *words])
    assert stopped.value.code == 2
    assert "has no column 'prompt', its columns are prompts, role" in capsys.readouterr().err

    def opened(device: torch.device) -> Evaluators:
        raise AssertionError("a reader was opened")

    with pytest.raises(InputError, match="no column 'prompt'"):
        evaluate_run(run, suite="prompts", file=tmp_path / "rows.csv", evaluators=opened)


def test_the_report_is_a_pure_function_of_the_folder(run: Path) -> None:
    first = report(run).read_bytes(), (run / "report.json").read_bytes()
    assert (report(run).read_bytes(), (run / "report.json").read_bytes()) == first


def test_an_untouched_evaluation_verifies(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(run) == []
    assert redraw(run, 0.2) == (3, [])
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(run)])
    assert stopped.value.code in (0, None)
    assert "all hashes and figures agree" in capsys.readouterr().out


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def reseal(folder: Path) -> None:
    """Write the hashes of an evaluation anew, as one would who wants to hide a change."""
    facts = json.loads((folder / "evaluation.json").read_text())
    kept = {name: value for name, value in facts.items() if name not in ("sha256", "sealed")}
    (folder / "evaluation.json").write_text(write_facts(folder, kept))


def test_whatever_is_changed_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its hash, and even where the hashes were written anew by what must follow from it."""
    folder = run / "evaluation" / "prompts-rows"
    kept = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    rows = (folder / "rows.jsonl").read_text()

    def found(name: str, why: str = "was changed later") -> str:
        assert verify(run) == [f"evaluation/prompts-rows/{name} {why}"]
        reseal(folder)
        (line,) = verify(run)
        restore()
        return line

    def restore() -> None:
        for path, data in kept.items():
            (run / path).write_bytes(data)

    row = next(line for line in rows.splitlines() if '"after"' in line and '/object"' in line)
    other = "dog" if json.loads(row)["value"] != "dog" else "bear"
    changed(folder / "rows.jsonl", row, json.dumps(json.loads(row) | {"value": other}))
    assert "tables.json does not follow from rows.jsonl" in found("rows.jsonl")
    changed(folder / "rows.jsonl", row, row[:-3])
    assert "is not JSON" in found("rows.jsonl")
    changed(folder / "rows.jsonl", rows, "")
    assert "it has no row for" in found("rows.jsonl")
    changed(folder / "tables.json", '"grade": "', '"grade": "very ')
    assert "verdict > grade differs" in found("tables.json")
    changed(folder / "cases.jsonl", '"prompt": "a cat 0"', '"prompt": "a cat 9"')
    (folder / "features.safetensors").unlink()
    assert verify(run) == [
        "evaluation/prompts-rows/features.safetensors is missing",
        "evaluation/prompts-rows/cases.jsonl was changed later",
    ]
    reseal(folder)
    assert "not the one of the plan" in verify(run)[0]
    restore()
    changed(folder / "plan.json", '"version": 1', '"version": 9')
    assert "made with version 9 of suite 'prompts'" in found("plan.json")
    changed(folder / "plan.json", '"sides"', '"size"')
    assert "it has no 'sides'" in found("plan.json")

    picture = next((folder / "pictures/after").glob("a-dog*.png"))
    name = f"pictures/after/{picture.name}"
    with Image.open(picture) as file:
        facts = json.loads(file.text["unlearnkit"])
    save_png(Image.new("RGB", (16, 16)), picture, facts=facts)
    _, apart = redraw(run, 1.0)
    assert [line.split()[0] for line in apart] == [f"evaluation/prompts-rows/{name}"]
    assert f"{name} is not the picture that was scored" in found(name)
    picture.unlink()
    assert "is missing" in found(name, "is missing")
    edit = Edit.load(run / "edit.safetensors")
    Edit({name: weight + 1 for name, weight in edit.weights.items()}, edit.facts).save(
        run / "edit.safetensors"
    )
    assert verify(run) == ["edit.safetensors was changed later"]
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(run)])
    assert stopped.value.code == 2
    assert "changed: edit.safetensors was changed later" in capsys.readouterr().out


def test_two_comparisons_never_mix_and_a_killed_one_leaves_nothing(
    run: Path, evaluated: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    with locked(page), pytest.raises(InputError, match=r"another process \("):
        compare([run, evaluated], page)
    (page / ".unlearnkit-x.part").mkdir()
    (page / "theirs.part").touch()
    compare([run, evaluated], page)
    assert {path.name for path in page.iterdir()} == {
        *(".lock", "theirs.part", "compare.html", "compare.json")
    }


def test_a_run_of_two_rounds_is_compared_with_one_of_one_round(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the pictures of the first round, in either order."""
    shorter, table = tmp_path / "shorter", tmp_path / "dogs.csv"
    shutil.copytree(run, shorter)
    dogs = (f"a dog {i},near,dog" for i in range(9))
    table.write_text("\n".join(["prompt,role,object", "a cat,erased,cat", *dogs]))
    monkeypatch.setattr(plan, "FIRST", 4)
    for folder, decided in ((run, False), (shorter, True)):
        monkeypatch.setattr(claims, "decided", lambda *_, decided=decided: decided)
        evaluate_run(folder, suite="prompts", file=table, quick=True, evaluators=lambda device: tools())
    for pair in ((run, shorter), (shorter, run)):
        compare(pair, tmp_path / "page", suite="prompts-dogs")
        (found,) = json.loads((tmp_path / "page/compare.json").read_text())["pairs"]
        assert found["kept"]["n"] == 4


def test_runs_are_compared_on_the_same_cases(run: Path, evaluated: Path, tmp_path: Path) -> None:
    text = compare([run, evaluated], tmp_path / "page").read_text()
    assert Page(text).open == []
    facts = json.loads((tmp_path / "page" / "compare.json").read_text())
    assert [one["grade"] for one in facts["runs"]] == [facts["runs"][0]["grade"]] * 2
    assert facts["pairs"][0]["seen"]["value"] == 0
    assert facts["pairs"][0]["seen"]["p"] == 1
    assert facts["pairs"][0]["seen"]["says"] == "no difference shown"
    shown = [attrs for tag, attrs in Page(text).seen if tag == "img"]
    assert len(shown) == 3 * (3 + 3 + 1), (
        "before and two runs: three prompts of a role at most, and one is unrelated"
    )
    assert all(attrs.get("alt") for attrs in shown)
    with pytest.raises(InputError, match="two evaluated runs or more"):
        compare([run], tmp_path / "other")
    folder = run / "evaluation/prompts-rows"
    plan, facts = (json.loads((folder / name).read_text()) for name in ("plan.json", "evaluation.json"))
    plan["cases"]["sha256"] = "0"
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match=r"plan\.json of .* was changed later"):
        compare([run, evaluated], tmp_path / "other")
    reseal(folder)
    with pytest.raises(InputError, match="other prompts or seeds"):
        compare([run, evaluated], tmp_path / "other")


@pytest.mark.parametrize("words", [["report", "../nowhere"], ["verify", "."], ["evaluate", "../../etc"]])
def test_folders_that_are_no_runs(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2


def test_two_processes_give_the_same_figures(run: Path, evaluated: Path, tmp_path: Path) -> None:
    """As accelerate starts them; pictures may differ by one level of 255, see ``Model.sample``."""
    shutil.rmtree(run / "evaluation")
    file, two_tools = evaluated.parent / "rows.csv", tools()
    two(
        lambda: evaluate_run(run, suite="prompts", file=file, evaluators=lambda device: two_tools, batch=2),
        tmp_path,
    )
    facts = json.loads((run / "evaluation/prompts-rows/evaluation.json").read_text())
    assert facts["processes"] == 2
    shared, alone = (
        json.loads((folder / "evaluation/prompts-rows/tables.json").read_text())
        for folder in (run, evaluated)
    )
    assert shared["verdict"]["grade"] == alone["verdict"]["grade"]
    assert shared["tables"]["concepts"] == alone["tables"]["concepts"]
    assert shared["tables"]["kept"] == alone["tables"]["kept"]
    assert verify(run) == []


def test_the_plan_names_what_differs(run: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt\na cat\n")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tools = evaluators_of(CanvasClassifier("plain", ["cat", "dog"], ["plain"]).eval(), "eye@0")
    with pytest.raises(InputError, match=r"another plan \(cases differs"):
        evaluate_run(run, suite="prompts", file=tmp_path / "rows.csv", evaluators=lambda device: tools)
    with pytest.raises(InputError, match="needs evaluators"):
        evaluate_run(run, suite="prompts", file=tmp_path / "rows.csv")


def test_the_canvas_judge_is_not_asked_about_pictures_unlike_its_own(run: Path, tmp_path: Path) -> None:
    recipe = run / "recipe.toml"
    model = load_recipe(recipe).model
    large = shutil.copytree(model, tmp_path / "large")
    hints = large / "unlearnkit.toml"
    styles = [style for style in world.STYLES if style != "plain"]
    known = f"objects = {json.dumps(list(world.OBJECTS))}\nstyles = {json.dumps(styles)}\n"
    hints.write_text(f"[sampling]\nsize = 64\n[vocabulary]\n{known}")  # 32 x 32 latents
    recipe.write_text(recipe.read_text().replace(model, str(large)))
    with pytest.raises(InputError, match=r"small pictures of the canvas, unlike .*large.* name a classifier"):
        evaluate_run(run)


def test_somebodys_own_model_has_no_suite_by_default(run: Path) -> None:
    """Else the canvas's 1,134 pictures would be asked of it, and its judge would look at them."""
    with pytest.raises(
        InputError, match=r"is not the canvas, .*--suite prompts --file prompts.csv --objects"
    ):
        evaluate_run(run)
    with pytest.raises(InputError, match="is not the canvas"):
        evaluate_run(run, evaluators=lambda device: tools())
    with pytest.raises(InputError, match="suite 'canvas' needs evaluators"):
        evaluate_run(run, suite="canvas")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold", "0.5"], "belong to --nudenet"),
        (["--labels", "broad"], "belong to --nudenet"),
        (["--self-test"], "takes no run"),
        (["--replicates", "1000000"], "--replicates"),
        (["--batch", "100000"], "--batch"),
        (["--limit", "nan"], "'limit' got nan"),
        (["--suite", "x" * 9999], "is unknown"),
        (["--suite", "prompts", "--file", "x" * 9999], "too long"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_opened(
    evaluated: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(evaluated), *words])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said) < 1500
