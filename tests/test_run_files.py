"""A finished run folder: every damage is found, two commands never mix in it, and no link leads out of it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import re
import shutil
import signal
from pathlib import Path

import pytest

import saved
from unlearnkit.cli import main
from unlearnkit.cli.signals import interruptible
from unlearnkit.data.pictures import draw as pictures_of
from unlearnkit.errors import InputError
from unlearnkit.evaluation.evaluate import evaluate_run
from unlearnkit.evaluation.report import report
from unlearnkit.evaluation.verify import check, redraw, verify
from unlearnkit.io import manifest
from unlearnkit.io.files import FullError, entries, resumable
from unlearnkit.io.locks import locked
from unlearnkit.methods import find
from unlearnkit.model.edit import Edit
from unlearnkit.model.load import load
from unlearnkit.model.places import RELATIVES
from unlearnkit.runs.images import draw
from unlearnkit.runs.names import default_folder
from unlearnkit.runs.recipes import SHIPPED, load_recipe, placed
from unlearnkit.runs.run import erase, run_recipe
from unlearnkit.schema import Concept, Recipe, Request
from unlearnkit.training.state import CheckpointTimer

SHORT = {"steps": 3, "start_steps": 2, "lr": 1e-3}


@pytest.fixture(scope="module")
def whole(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a log that was evaluated and reported; treat it as read-only."""
    run = tmp_path_factory.mktemp("whole") / "run"
    erase(load(saved.folder()), "cat", out=run, seed=5, **SHORT)
    file = evaluated.parent / "rows.csv"
    evaluate_run(run, suite="prompts", file=file, evaluators=lambda device: saved.tools())
    report(run)
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


def test_a_flipped_and_a_missing_byte_of_every_file_is_found(run: Path) -> None:
    files = {name: path for name, path in manifest.contents(run).items() if path.is_file()}
    assert {name.partition("/")[0] for name in files} == {
        *("recipe.toml", "log.jsonl", "edit.safetensors", "pipeline", "grid.png", "run.json"),
        *("evaluation", "report.html", "report.json"),
    }
    assert check(run) == ([], [])
    draws = random.Random(0)
    for name, path in files.items():
        data = path.read_bytes()
        at, bit = draws.randrange(len(data)), 1 << draws.randrange(8)
        flipped = bytearray(data)
        flipped[at] ^= bit
        for damaged in (bytes(flipped), data[:at] + data[at + 1 :]):
            path.write_bytes(damaged)
            found = verify(run)
            assert found and all(line.startswith(name) for line in found), (name, at, bit, found)
        path.unlink()
        assert any(line.startswith(name) for line in check(run)[0] + check(run)[1]), name
        path.write_bytes(data)
    assert check(run) == ([], [])


def reseal(run: Path) -> None:
    """Write the hashes of a run anew, as one would who wants to hide a change."""
    facts = json.loads((run / "run.json").read_text())
    files = {name: manifest.listing(run)[name] for name in facts["files"]}
    facts |= {"files": files, "seal": files["edit.safetensors"]["sha256"]}
    (run / "run.json").write_text(manifest.dump(facts))


def test_what_was_exchanged_is_found_although_the_hashes_were_written_anew(run: Path) -> None:
    kept = {name: path.read_bytes() for name, path in manifest.contents(run).items()}
    unet, edit = run / "pipeline/unet", Edit.load(run / "edit.safetensors")
    recipe = (run / "recipe.toml").read_text()

    def found() -> list[str]:
        reseal(run)
        lines = verify(run)
        for name, data in kept.items():
            (run / name).write_bytes(data)
        return lines

    shutil.copytree(saved.folder() / "unet", unet, dirs_exist_ok=True)
    (line,) = found()
    assert line.startswith("pipeline/unet does not have ") and line.endswith(" as edit.safetensors has it")

    model = load(saved.folder())
    other = {name: value + 1 for name, value in model.weights("all").items() if name not in edit.weights}
    shutil.rmtree(run / "pipeline")
    with model.wearing(other):
        model.save(run / "pipeline", edit=Edit(edit.weights))
    assert found() == ["pipeline/unet differs from the base model where edit.safetensors changes nothing"]

    for name, value in {"method": "uce", "seed": 6, "request": {"erase": [], "keep": []}}.items():
        Edit(edit.weights, edit.facts | {name: value}).save(run / "edit.safetensors")
        assert found() == [f"recipe.toml has another {name} than edit.safetensors"]
    for old, new, what in (
        ("seed = 5", "seed = 6", "seed"),
        ("steps = 3", "steps = 4", "steps"),
        ('name = "cat"', 'name = "dog"', "request"),
    ):
        (run / "recipe.toml").write_text(recipe.replace(old, new))
        assert f"recipe.toml has another {what} than edit.safetensors" in found()

    Edit({name: 2 * value for name, value in edit.weights.items()}, edit.facts).save(run / "edit.safetensors")
    assert "edit.safetensors is not the edit in run.json" in found()


def test_a_report_is_compared_with_the_figures(run: Path, evaluated: Path) -> None:
    html, facts = run / "report.html", json.loads((run / "report.json").read_text())
    kept = (run / "report.json").read_bytes(), html.read_bytes()
    facts["evaluations"]["prompts-rows"]["verdict"]["grade"] = "excellent"
    (run / "report.json").write_text(manifest.dump(facts))
    assert verify(run) == ["report.json does not follow from the run: its evaluations differs"]
    html.write_text(html.read_text().replace("What is not claimed", "What is claimed"))
    facts = json.loads(kept[0]) | {"sha256": {"report.html": manifest.file_hash(html)}}
    (run / "report.json").write_text(manifest.dump(facts))
    assert verify(run) == ["report.html does not follow from the figures: unlearnkit report writes it again"]
    for path, data in zip((run / "report.json", html), kept, strict=True):
        path.write_bytes(data)
    file = run.parent / "others.csv"
    file.write_text("prompt,role,object\nmy cat,erased,cat\nmy dog,near,dog\n")
    evaluate_run(run, suite="prompts", file=file, evaluators=lambda device: saved.tools())
    (remark,) = check(run)[1]
    assert verify(run) == [] and "is older than the evaluation prompts-others" in remark


def test_files_of_the_user_are_named_and_others_are_changes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "notes.txt").write_text("mine")
    (run / "pictures").mkdir()
    assert command("verify", run) == 0
    said = capsys.readouterr().out
    assert "not checked: notes.txt is no part of the run" in said
    assert "not checked: pictures is no part of the run" in said
    for name in ("pipeline/unet/more.py", "evaluation/prompts-rows/more", "checkpoint.safetensors"):
        (run / name).write_text("more")
    assert verify(run) == [
        "checkpoint.safetensors was added later",
        "pipeline/unet/more.py was added later",
        "evaluation/prompts-rows/more was added later",
    ]


def test_a_run_without_an_evaluation_is_verified(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report.html", "report.json"):
        (run / name).unlink()
    shutil.rmtree(run / "evaluation")
    assert command("verify", run) == 0
    (run / "grid.png").write_bytes(b"")
    assert command("verify", run) == 2
    assert "changed: grid.png was changed later" in capsys.readouterr().out


def test_a_run_of_an_older_version_is_read_and_what_cannot_be_checked_is_said(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    old = {name: facts[name] for name in ("edit", "base", "seconds", "resumed", "finished", "device")}
    (run / "run.json").write_text(json.dumps(old, indent=2))
    evaluation = run / "evaluation/prompts-rows/evaluation.json"
    facts = json.loads(evaluation.read_text())
    listed = {name: sum_ for name, sum_ in facts["sha256"].items() if "/" not in name}
    old = {name: value for name, value in facts.items() if name != "sealed"} | {"sha256": listed}
    evaluation.write_text(json.dumps(old, indent=1))
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace('dtype = "float32"\n', ""))
    report(run)
    wrong, remarks = check(run)
    assert wrong == [] and len(remarks) == 1 and "older unlearnkit and has no hashes" in remarks[0]
    assert command("erase", "--resume", "--out", run) == 0
    assert redraw(run, 0.1)[1] == []


def test_a_pipeline_behind_a_link_is_no_part_of_the_run(run: Path, tmp_path: Path) -> None:
    """Only its denoiser would be looked at, so a changed text encoder could pass."""
    (run / "pipeline").rename(tmp_path / "elsewhere")
    assert verify(run) == [], "a pipeline may be removed"
    (run / "pipeline").symlink_to(tmp_path / "elsewhere")
    assert any("pipeline is a symbolic link" in line for line in verify(run))


def test_what_a_killed_process_left_in_any_folder_goes(run: Path, tmp_path: Path) -> None:
    """The run's, a stage's, the cache's and that of pictures."""
    pictures, cache = tmp_path / "pictures", tmp_path / "cache" / "pictures"
    left = [place / ".unlearnkit-x.part" for place in (run, run / "stage-1", pictures, cache)]
    for place in left:
        place.mkdir(parents=True)
        (place / "a").touch()
    model = load(saved.folder())
    (run / "run.json").unlink()
    run_recipe(load_recipe(run / "recipe.toml"), run, model=model, resume=True)
    draw(model, ["a cat"], pictures)
    pictures_of(model, ["a cat"], folder=cache.parent)
    assert not [place for place in left if place.exists()]


def test_no_damage_of_a_finished_run_is_resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [*json.loads((run / "run.json").read_text())["files"], "run.json"]
    for name in names:
        data = (run / name).read_bytes()
        for damaged in (data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], data[: len(data) // 2]):
            (run / name).write_bytes(damaged)
            assert command("erase", "--resume", "--out", run) == 2, name
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and Path(name).name in said, said
        (run / name).write_bytes(data)
    shutil.rmtree(run / "pipeline")
    wrong, (remark,) = check(run)
    assert wrong == [] and remark.startswith("pipeline was removed")
    assert command("erase", "--resume", "--out", run) == 0
    assert check(run) == ([], [])


def test_figures_are_not_shown_from_damaged_files(
    run: Path, evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run / "evaluation/prompts-rows"
    file = evaluated.parent / "rows.csv"
    deep = "[" * 100_000
    for name, text in (
        ("tables.json", (folder / "tables.json").read_text()[:1988]),
        ("evaluation.json", (folder / "evaluation.json").read_text()[:199]),
        ("evaluation.json", "{}"),
        ("evaluation.json", deep),
        ("plan.json", (folder / "plan.json").read_text().replace('"sides"', '"side"')),
        ("plan.json", deep),
        ("rows.jsonl", ""),
        ("cases.jsonl", "[1]\n"),
        ("pictures/after/" + next((folder / "pictures/after").iterdir()).name, ""),
        ("../../run.json", "[1]"),
        ("../../run.json", "{}"),
    ):
        data = (folder / name).read_bytes()
        (folder / name).write_text(text)
        for words in (["verify", run], ["report", run], ["compare", run, evaluated]):
            assert command(*words) == 2
            said = capsys.readouterr()
            assert Path(name).name in said.out + said.err and (said.out + said.err).count("\n") == 1
        with pytest.raises(InputError, match=Path(name).stem):
            evaluate_run(run, suite="prompts", file=file, evaluators=lambda device: saved.tools())
        (folder / name).write_bytes(data)
    assert verify(run) == []


def interrupted(folder: Path, at: int = 2) -> None:
    """A run that was stopped after two steps of three, with a checkpoint."""

    def tick(stage: str, done: int, total: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    recipe = Recipe(str(saved.folder()), "esd", Request((Concept("cat"),)), SHORT, seed=5)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CheckpointTimer, "due", lambda self, done: True)
        run_recipe(recipe, folder, tick=tick)
    assert (folder / "checkpoint.safetensors").exists()


def test_a_damaged_log_is_no_obstacle_and_a_changed_checkpoint_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "run")
    checkpoint, log = tmp_path / "run/checkpoint.safetensors", tmp_path / "run/log.jsonl"
    kept = checkpoint.read_bytes()
    checkpoint.write_bytes(kept[:-9] + bytes([kept[-9] ^ 1]) + kept[-8:])
    assert command("erase", "--resume", "--out", tmp_path / "run") == 2
    assert "checkpoint.safetensors' was changed: delete it" in capsys.readouterr().err
    checkpoint.write_bytes(kept)
    first = log.read_bytes().split(b"\n")[0]
    log.write_bytes(first + b'\n{"step": "2"}\n[[[\n\xff\xfe\n{"step": 1' + b"0" * 5000 + b"}\n")
    assert command("erase", "--resume", "--out", tmp_path / "run") == 0
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 3]
    assert Edit.load(tmp_path / "run/edit.safetensors").hash() == Edit.load(whole / "edit.safetensors").hash()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_signal_that_ends_a_command_leaves_a_way_to_go_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (number := getattr(signal, name, None)):
        pytest.skip("this system has no such signal")
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("it is ignored here, as in a shell's background")
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(number)
    words = [word for one in SHORT.items() for word in ("--set", "=".join(map(str, one)))]

    def tick(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 2:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr("unlearnkit.io.progress._lines", lambda console: tick)
        out = tmp_path / "run"
        assert command("erase", saved.folder(), "--concept", "cat", *words, "--out", out) == 130
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(number)) == handlers
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"stopped; continue with: unlearnkit erase --resume --out {out}"
    assert (out / "log.jsonl").exists() and not (out / "run.json").exists()


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_is_not_mixed_with_another_that_is_under_way(
    run: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever holds the lock is named, and what is there stays as it is."""
    shutil.rmtree(run / "pipeline")
    rows = ["evaluate", run, "--suite", "prompts", "--file", evaluated.parent / "rows.csv", "--objects", "x"]
    with locked(run), locked(run / "evaluation/prompts-rows"):
        before = {name: path.read_bytes() for name, path in manifest.contents(run).items()}
        for words in (["erase", "--resume", "--out", run], ["report", run]):
            assert command(*words) == 2
            assert f"another process ({os.getpid()} on " in capsys.readouterr().err
        with pytest.raises(InputError, match=f"another process \\({os.getpid()} on "):
            evaluate_run(run, suite="prompts", file=rows[5], evaluators=lambda device: saved.tools())
        assert before == {name: path.read_bytes() for name, path in manifest.contents(run).items()}
    with locked(tmp_path / "new"):
        assert command("erase", saved.folder(), "--concept", "cat", "--out", tmp_path / "new") == 2
        assert "another process" in capsys.readouterr().err
        assert entries(tmp_path / "new") == []


def test_runs_with_other_settings_have_folders_of_their_own() -> None:
    def folder(settings: dict[str, object], keep: tuple[str, ...] = (), **more: object) -> str:
        concept = Concept("cat", **more)  # type: ignore[arg-type]
        request = Request((concept,), tuple(Concept(name) for name in keep))
        return str(default_folder(Recipe("canvas", "esd", request, settings)))

    defaults = dataclasses.asdict(find("esd")())
    assert folder({}) == folder(defaults) == "runs/esd-cat-0"
    others = [
        *(folder({"steps": 3}), folder({"steps": 4}), folder({"lr": 1e-3}), folder(defaults | {"lr": 1e-3})),
        *(folder({}, keep=("dog",)), folder({}, phrases=("kitten",)), folder({}, instead="dog")),
    ]
    assert len(set(others)) == len(others)
    assert all(re.fullmatch("runs/esd-cat-0-[0-9a-f]{6}", name) for name in others)


def test_a_run_goes_on_in_its_own_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(tmp_path / "run")
    for words in ("verify", "evaluate"):
        assert command(words, tmp_path / "run") == 2
        assert "has an unfinished run: continue it with unlearnkit erase --resume" in capsys.readouterr().err
    (tmp_path / "run/checkpoint.safetensors").unlink()
    assert command("erase", "--resume", "--out", tmp_path / "run", "--dtype", "bfloat16") == 2
    assert "(dtype was 'float32', now 'bfloat16')" in capsys.readouterr().err
    words = ["--method", "uce", "--no-pipeline", "--pictures", 0, "--dtype", "bfloat16"]
    out = tmp_path / "half"
    assert command("erase", saved.folder(), "--concept", "cat", *words, "--out", out) == 0
    assert load_recipe(out / "recipe.toml").dtype == "bfloat16"
    words = ["--recipe", out / "recipe.toml", "--no-pipeline", "--pictures", 0, "--out", tmp_path / "again"]
    assert command("erase", *words) == 0
    assert Edit.load(tmp_path / "again/edit.safetensors").facts["dtype"] == "bfloat16"


def test_no_link_in_a_run_folder_is_followed(run: Path, evaluated: Path, tmp_path: Path) -> None:
    """Not recipe, log, checkpoint or a folder of an evaluation; what they point to stays as it is."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("recipe.toml", "log.jsonl", "checkpoint.safetensors", "stage-1", "grid.png"):
        folder = tmp_path / name.partition(".")[0]
        interrupted(folder)
        (theirs / name).write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"theirs")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(theirs / name)
        before = (theirs / name).read_bytes()
        assert command("erase", "--resume", "--out", folder) == 2
        assert (theirs / name).read_bytes() == before and (folder / name).is_symlink()
    file = evaluated.parent / "rows.csv"
    for name in ("evaluation/prompts-rows/pictures/after", "evaluation/prompts-rows", "evaluation"):
        shutil.rmtree(run / name)
        (run / name).symlink_to(theirs)
        with pytest.raises(InputError, match="symbolic link"):
            evaluate_run(run, suite="prompts", file=file, evaluators=lambda device: saved.tools())
        assert "symbolic link" in verify(run)[0] or "is missing: report.json shows it" in verify(run)[0]
        assert len(list(theirs.iterdir())) == 5
        (run / name).unlink()
    (run / "report.html").unlink()


@pytest.mark.parametrize(
    "words", [["report"], ["verify"], ["evaluate"], ["erase", "m", "--concept", "cat", "--out"]]
)
@pytest.mark.parametrize("name", ["é" * 200, "~/" + "x" * 300])
def test_a_folder_whose_name_no_file_system_takes(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*words, name) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) < 300, said


def test_a_model_is_found_from_wherever_a_run_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the path from the recipe's own folder, whatever the current one is; names of shipped models are none."""
    shutil.copytree(saved.folder(), tmp_path / "here/model")
    (tmp_path / "here/canvas").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    short = ["--method", "uce", "--no-pipeline", "--pictures", 0]
    assert command("erase", "model", "--concept", "cat", *short, "--out", "~/run") == 0
    text = (tmp_path / "run/recipe.toml").read_text()
    text = text.replace(f"model = {json.dumps(str(tmp_path / 'here/model'))}", 'model = "model"')
    Path("recipe.toml").write_text(text)
    assert command("erase", "model", "--concept", "cat", *short, "--resume", "--out", "~/run") == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    for recipe in ("../here/recipe.toml", tmp_path / "run/recipe.toml"):
        out = tmp_path / f"again-{Path(recipe).parent.name}"
        words = ["--no-pipeline", "--pictures", 0, "--out", out]
        assert command("erase", "--recipe", recipe, *words) == 0
        edits = [Edit.load(folder / "edit.safetensors") for folder in (out, tmp_path / "run")]
        assert edits[0].hash() == edits[1].hash()
    model = load(load_recipe(tmp_path / "run/recipe.toml").model)
    assert model.fingerprint() == load(saved.folder()).fingerprint()
    assert (*SHIPPED,) == ("canvas", *RELATIVES)
    assert placed("canvas", tmp_path / "here") == "canvas"
    assert placed("owner/model", tmp_path / "here") == "owner/model"


def test_a_full_disk_says_how_to_go_on_only_where_something_was_begun(tmp_path: Path) -> None:
    def full(folder: Path, made: Path) -> str:
        with pytest.raises(FullError) as raised, resumable(made, "go on with --resume"), locked(folder):
            raise OSError(errno.ENOSPC, "No space left on device")
        return str(raised.value)

    assert full(tmp_path, tmp_path / "recipe.toml").endswith("make room and try again")
    (tmp_path / "recipe.toml").touch()
    assert full(tmp_path, tmp_path / "recipe.toml").endswith("make room and try again; go on with --resume")


def test_a_pipeline_that_a_killed_command_added_is_taken_if_it_is_the_runs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kill came after the folder and before ``run.json``, which is written last."""
    edit, model = Edit.load(run / "edit.safetensors"), load(saved.folder())
    shutil.rmtree(run / "pipeline")
    facts = json.loads((run / "run.json").read_text())
    files = {name: one for name, one in facts["files"].items() if not name.startswith("pipeline/")}
    facts = {name: one for name, one in facts.items() if name not in ("denoiser", "rest")}
    (run / "run.json").write_text(manifest.dump(facts | {"files": files}))
    assert verify(run) == []
    model.save(run / "pipeline")
    assert command("erase", "--resume", "--out", run) == 2
    assert "remove the folder 'pipeline', and --resume writes it again" in capsys.readouterr().err
    shutil.rmtree(run / "pipeline")
    model.save(run / "pipeline", edit=edit)
    assert command("erase", "--resume", "--out", run) == 0
    assert verify(run) == []
