"""An evaluation that is damaged, unfinished or of nothing: drawn again or one line, never a traceback or a verdict."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from test_evaluate import CAT, Words, gone_in, panel_of, smooth, verdict_of
from test_readers import made

from saved import tools
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.evaluation.claims import verdict
from unlearnkit.evaluation.compare import compare
from unlearnkit.evaluation.draw import Side, model_side, picture_hash, read
from unlearnkit.evaluation.evaluate import evaluate, evaluate_run
from unlearnkit.evaluation.plan import Rules, plan_for
from unlearnkit.evaluation.record import write_facts
from unlearnkit.evaluation.report import report
from unlearnkit.evaluation.tables import tables
from unlearnkit.io import manifest
from unlearnkit.metrics.evaluators import Evaluators, local_evaluators
from unlearnkit.model.model import Model
from unlearnkit.schema import Case, Score


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of an evaluated run to spoil."""
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


@pytest.fixture
def folder(run: Path) -> Path:
    return run / "evaluation" / "prompts-rows"


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command says on its error output, where it refuses in one line."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    text = capsys.readouterr().err.strip()
    assert stopped.value.code == 2, text
    assert "\n" not in text and len(text) < 600, text
    return text


def foreign(path: Path, **chunk: str) -> None:
    notes = PngImagePlugin.PngInfo()
    for name, text in chunk.items():
        notes.add_itxt(name, text)
    Image.new("RGB", (16, 16)).save(path, pnginfo=notes)


def enormous(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


SPOILT: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-60]),
    "cut early": lambda path: path.write_bytes(path.read_bytes()[:70]),
    "empty": lambda path: path.write_bytes(b""),
    "no picture": lambda path: path.write_bytes(b"\xff" * 99),
    "flipped": lambda path: path.write_bytes(
        path.read_bytes()[:-40] + bytes([path.read_bytes()[-40] ^ 255]) + path.read_bytes()[-39:]
    ),
    "enormous": enormous,
    "without a chunk": foreign,
    "{}": lambda path: foreign(path, unlearnkit="{}"),
    "[1]": lambda path: foreign(path, unlearnkit="[1]"),
    "not JSON": lambda path: foreign(path, unlearnkit="{"),
    "nested": lambda path: foreign(path, unlearnkit="[" * 100_000),
    "another type": lambda path: foreign(
        path, unlearnkit='{"prompt": 1, "seed": "a", "side": [], "failure": null}'
    ),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture(scope="module")
def under_way(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that was stopped before it was finished; each test spoils one picture of it."""
    run = Path(shutil.copytree(evaluated, tmp_path_factory.mktemp("under-way") / "run"))
    for name in ("evaluation.json", "tables.json", "rows.jsonl"):
        (run / "evaluation" / "prompts-rows" / name).unlink()
    return run


def test_a_damaged_picture_of_an_evaluation_under_way_is_drawn_again(
    evaluated: Path, under_way: Path
) -> None:
    folder = under_way / "evaluation/prompts-rows/pictures/after"
    paths = sorted(folder.glob("*.png"))
    was = [picture_hash(read(path)[0]) for path in paths]
    kinds = list(SPOILT)
    for start in range(0, len(kinds), len(paths)):
        chosen = kinds[start : start + len(paths)]
        for path, kind in zip(paths, chosen, strict=False):
            SPOILT[kind](path)
        found = evaluate_run(
            under_way, suite="prompts", file=evaluated.parent / "rows.csv", evaluators=lambda device: tools()
        )
        assert [picture_hash(read(path)[0]) for path in paths] == was, chosen
        done = under_way / "evaluation/prompts-rows"
        assert found == json.loads((evaluated / "evaluation/prompts-rows/tables.json").read_text())["verdict"]
        for name in ("evaluation.json", "tables.json", "rows.jsonl"):
            (done / name).unlink()


def test_another_models_picture_and_a_full_folder_are_errors_with_a_way_out(
    evaluated: Path, under_way: Path
) -> None:
    folder = under_way / "evaluation/prompts-rows/pictures/after"
    path = min(folder.glob("*.png"))
    kept = path.read_bytes()
    facts = json.dumps(read(path)[1] | {"side": "0" * 64})
    foreign(path, unlearnkit=facts)
    options: Any = {
        "suite": "prompts",
        "file": evaluated.parent / "rows.csv",
        "evaluators": lambda device: tools(),
    }
    with pytest.raises(InputError, match=r"drawn by another model, .* remove the folder"):
        evaluate_run(under_way, **options)
    path.unlink()
    path.mkdir()
    (path / "mine").touch()
    with pytest.raises(InputError, match="is a folder with something in it"):
        evaluate_run(under_way, **options)
    assert (path / "mine").exists()
    shutil.rmtree(path)
    path.symlink_to(min(folder.parent.glob("before/*.png")))
    with pytest.raises(InputError, match="is a symbolic link"):
        evaluate_run(under_way, **options)
    path.unlink()
    path.write_bytes(kept)


DAMAGE = {
    "plan.json": ["{}", "[" * 100_000, "[1]", "", "{"],
    "cases.jsonl": ["", "{}\n", "[1]\n"],
    "rows.jsonl": ["", "{}\n"],
    "tables.json": ["{}", "{", '{"verdict": 1, "tables": []}'],
    "evaluation.json": ["{}", "[1]", "{", '{"sha256": [], "versions": {}, "finished": ""}'],
    "../../run.json": ["[1]", "{}", "["],
    "features.safetensors": ["nothing"],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_report_of_damaged_files_is_one_line(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for text in DAMAGE[name]:
        (folder / name).write_text(text)
        assert "damaged" in said(capsys, "report", run), text
    (folder / name).write_bytes(b"\xff\xfe")
    said(capsys, "report", run)
    said(capsys, "compare", run, run, "--out", run / "page")
    (folder / name).unlink()
    if name not in ("evaluation.json", "features.safetensors"):
        said(capsys, "report", run)
    assert not (run / "report.html").exists()


def other(value: Any, *place: str | int) -> Callable[[Any], object]:
    """A change of what is at a place of a JSON tree; ``...`` removes it."""

    def change(tree: Any) -> None:
        for step in place[:-1]:
            tree = tree[step]
        if value is ...:
            del tree[place[-1]]
        else:
            tree[place[-1]] = value

    return change


BY_HAND: list[tuple[str, Callable[[Any], object]]] = [
    ("tables.json", other({}, "verdict")),
    ("tables.json", other("often", "verdict", "concepts", 0, "missing")),
    ("tables.json", other(..., "verdict", "rules", "margin")),
    ("tables.json", other(..., "tables", "failed", "reasons")),
    ("tables.json", other("1", "tables", "concepts", 0, "direct", "after", "low")),
    ("tables.json", other(None, "tables", "concepts", 0, "seen instead", "after")),
    ("tables.json", other([["a cat"]], "tables", "concepts", 0, "seen instead", "after")),
    ("tables.json", other([3], "tables", "by concept", "object")),
    ("plan.json", other(..., "seeds")),
    ("plan.json", other({}, "sides")),
    ("plan.json", other([[1]], "concepts")),
    ("cases.jsonl", other("a dog", 0, "prompt")),
    ("evaluation.json", other(..., "sha256", "rows.jsonl")),
]


@pytest.mark.parametrize(("name", "change"), BY_HAND)
def test_figures_of_another_shape_whose_hashes_fit_are_one_line(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str], name: str, change: Callable[[Any], object]
) -> None:
    text = (folder / name).read_text()
    tree = [json.loads(row) for row in text.split("\n")[:-1]] if name[-1] == "l" else json.loads(text)
    change(tree)
    if name == "evaluation.json":
        (folder / name).write_text(manifest.dump(tree))
    else:
        rows = "".join(json.dumps(row) + "\n" for row in tree)
        (folder / name).write_text(rows if name[-1] == "l" else json.dumps(tree))
        facts = json.loads((folder / "evaluation.json").read_text())
        del facts["sha256"]
        (folder / "evaluation.json").write_text(write_facts(folder, facts))
    assert "damaged" in said(capsys, "report", run)
    said(capsys, "compare", run, run, "--out", run / "page")


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"verdict": {}}', "[" * 100_000])
def test_a_finished_evaluation_whose_verdict_is_damaged_is_one_line(
    evaluated: Path, run: Path, folder: Path, text: str
) -> None:
    (folder / "tables.json").write_text(text)
    with pytest.raises(InputError, match=r"tables.json of .* was changed later") as caught:
        evaluate_run(
            run, suite="prompts", file=evaluated.parent / "rows.csv", evaluators=lambda device: tools()
        )
    assert "\n" not in str(caught.value)


def test_a_damaged_log_is_no_part_of_the_report(run: Path) -> None:
    for text in ('{"step": 1, "loss": 1.0}\n[1]\n', "\xff", "[" * 9999):
        (run / "log.jsonl").write_text(text, encoding="latin-1")
        assert report(run).is_file()


def test_a_picture_that_is_gone_is_one_line(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "pictures" / "after")
    assert "is missing" in said(capsys, "report", run)
    assert "is missing" in said(capsys, "compare", run, run, "--out", run / "page")


@pytest.mark.parametrize("command", ["report", "compare", "evaluate"])
def test_a_name_that_is_too_long_is_one_line(
    evaluated: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    words = [command, *([evaluated] if command == "compare" else []), "é" * 300]
    assert "too long" in said(capsys, *words)
    if command == "compare":
        assert "too long" in said(capsys, command, evaluated, evaluated, "--out", "é" * 300)
        assert "share no evaluation" in said(
            capsys, command, evaluated, evaluated, "--out", tmp_path / "page", "--suite", "x" * 9999
        )


READERS: dict[str, Callable[[], Evaluators]] = {
    "objects": lambda: local_evaluators(objects=made("vit")),
    "styles": lambda: local_evaluators(styles=made("vit")),
    "clip": lambda: local_evaluators(clip=made("clip")),
    "features": lambda: local_evaluators(features=made("features")),
    "objects and features": lambda: local_evaluators(objects=made("vit"), features=made("features")),
    "objects, styles and clip": lambda: local_evaluators(
        objects=made("vit"), styles=made("vit"), clip=made("clip")
    ),
    "nothing": Evaluators,
}


@pytest.mark.parametrize("kind", READERS)
def test_every_page_renders_with_whatever_looked(evaluated: Path, tmp_path: Path, kind: str) -> None:
    run = Path(shutil.copytree(evaluated, tmp_path / "run"))
    for path in (run / "evaluation/prompts-rows").iterdir():
        if path.is_file():
            path.unlink()
    evaluate_run(
        run,
        suite="prompts",
        file=evaluated.parent / "rows.csv",
        evaluators=lambda device: READERS[kind](),
    )
    assert "What is not claimed" in report(run).read_text()
    assert compare([run, run], tmp_path / "page").is_file()


def test_the_methods_own_seconds_and_the_whole_runs_are_told_apart(run: Path, tmp_path: Path) -> None:
    """A closed form takes a moment; what took minutes was drawing and saving."""
    file = run / "run.json"
    facts = json.loads(file.read_text()) | {"seconds": 162.4}
    del facts["method seconds"]  # runs of older versions have none
    file.write_text(manifest.dump(facts))
    whole = "the whole run with its pictures and its saving took 162 s"
    assert whole in report(run).read_text()
    log = [{"step": 1, "seconds": 2.0}, {"step": 2, "seconds": 4.0}, {"step": 3, "seconds": 1.5}]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    both = "the method took 5.5 s, the whole run with its pictures and its saving 162 s"
    assert both in report(run).read_text(), "a log begins again where a run was resumed"
    file.write_text(manifest.dump(facts | {"method seconds": 0.3}))
    page = compare([run, run], tmp_path / "page").read_text()
    assert "the method took 0.3 s, the whole run" in page
    assert "made in" not in page
    file.write_text(manifest.dump(facts | {"resumed": True, "method seconds": float("nan")}))
    assert "the method took 5.5 s<" in report(run).read_text(), "a resumed run does not know the whole"


# no verdict from nothing


def scores(cases: list[Case], image: Callable[[Case, str], str]) -> dict[str, Any]:
    """Cats gone after the edit, and everything that stays right; ``image`` is a picture's hash."""
    from test_evaluate import CAT

    from unlearnkit.evaluation.draw import Side
    from unlearnkit.evaluation.plan import Rules, plan_for

    drawing = [Side(name, name, lambda prompts, seeds: []) for name in ("before", "after")]
    plan = plan_for("prompts", CAT, cases, [], drawing, Words(), Rules())  # type: ignore[arg-type]
    found = []
    for case in cases:
        for side in ("before", "after"):
            sees = "bear" if case.role == "erased" and side == "after" else case.object
            values: dict[str, Any] = {"failure": "", "reader@0/object": sees}
            if side == "after":
                values["change"] = 9.0
            found += [
                Score(case.id, side, image(case, side), metric, value, "prompts@1")
                for metric, value in values.items()
            ]
    return verdict(plan, tables(plan, cases, found, {}))


def test_pictures_that_are_all_one_are_no_erasure() -> None:
    """As of an autoencoder that gives one picture whatever it is told; a reader of objects alone has no features."""
    cases = panel_of({"name": 60, "synonym": 60})
    fine = scores(cases, lambda case, side: hashlib.sha256(f"{case.id}{side}".encode()).hexdigest())
    assert fine["grade"] == "generalises"
    one = scores(cases, lambda case, side: "one" if side == "after" else case.id)
    assert one["grade"] == "collapsed"
    assert "240 kept prompts give 1 different pictures, before 240" in one["sentence"]


def test_a_model_whose_own_pictures_fail_shows_nothing() -> None:
    cases = panel_of({"name": 60, "synonym": 60})
    for shown in (gone_in("name", "synonym"), lambda case, side: True, lambda case, side: False):
        found = verdict_of(cases, shown, lambda case, side: "not a number")
        assert found["grade"] == "not shown"
        assert "of the untouched model's own pictures failed" in found["sentence"]


@pytest.mark.parametrize(("before", "grade"), [(False, "collapsed"), (True, "not shown")])
def test_an_autoencoder_of_no_numbers_erases_nothing(
    make: Callable[..., Model], tmp_path: Path, before: bool, grade: str
) -> None:
    """After the edit that is a collapse; of the untouched model, too, no ground to judge on."""
    cases = panel_of({"name": 3}, kept=3)
    models = [make(), make(seed=1)]
    for model in models[0 if before else 1 :]:
        for weight in model.pipe.vae.parameters():
            weight.data.fill_(float("nan"))
    sides = [model_side(name, model) for name, model in zip(("before", "after"), models, strict=True)]
    if not before:
        sides[0] = Side("before", "blobs", lambda prompts, seeds: list(smooth(prompts, seeds)))
    plan = plan_for("prompts", CAT, cases, [], sides, tools(), Rules())
    found = evaluate(tmp_path / "out", cases, sides, plan, tools())
    assert found["grade"] == grade
    assert "failed" in found["sentence"]


def test_what_was_never_asked_is_not_shown() -> None:
    assert verdict_of(panel_of({"synonym": 60}), gone_in("synonym"))["grade"] == "not shown"
    assert verdict_of(panel_of({"name": 1}), gone_in("name"))["grade"] == "not shown"
