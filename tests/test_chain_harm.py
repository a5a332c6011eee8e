"""Chains that were damaged, forged or linked elsewhere: one clear line, and nothing is lost or written outside."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_bad_input import let_in
from test_chain import begun, files

import saved
from unlearnkit import chain
from unlearnkit.canvas.classifier import CanvasClassifier
from unlearnkit.chain.ledger import HEAD, LEDGER, Entry, append, new_entry, read
from unlearnkit.chain.project import EDITS, LOOKS, WORK
from unlearnkit.cli import main
from unlearnkit.errors import InputError, UnlearnError
from unlearnkit.metrics.evaluators import Evaluators, evaluators_of
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept

BAD: tuple[Any, ...] = (None, 1, -1, 2**70, "", "x", [], {}, [[]], float("nan"), 1e300, True, [{}])
MISSING = object()


def tools() -> Evaluators:
    """A toy Eye that reads the words of the toy model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return evaluators_of(
            CanvasClassifier("plain", ["cat", "dog", "bear", "car"], ["van gogh", "neon"]).eval(), "eye@0"
        )


@pytest.fixture(scope="module")
def toy() -> Model:
    return load(saved.folder())


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, toy: Model) -> Path:
    """A chain with three requests, one taken back and one undone, looks and a report; treat it as read-only."""
    project = begun(tmp_path_factory.mktemp("three") / "p", toy, method="uce", settings={}, pictures=1)
    for concept in (Concept("cat", phrases=("kitten",)), Concept("neon", "style"), Concept("car")):
        chain.add(project, concept, model=toy, evaluators=tools())
    chain.drop(project, 2, model=toy, evaluators=tools())
    chain.undo(project, model=toy, evaluators=tools())
    chain.report(project)
    return project


@pytest.fixture
def copied(three: Path, tmp_path: Path) -> Path:
    """A copy of that chain to do harm to."""
    return Path(shutil.copytree(three, tmp_path / "copy"))


def resealed(folder: Path, number: int, facts: Any, kind: str | None = None) -> None:
    """Write the ledger anew with other facts in one entry, so that every hash fits."""
    entries: list[Entry] = []
    was = [json.loads(line) for line in (folder / LEDGER).read_text(encoding="utf-8").split("\n")[:-1]]
    for turn, one in enumerate(was):
        changed = turn == number
        entries.append(new_entry(entries, kind or one["kind"], facts) if changed else anew(entries, one))
    append(folder, entries[:-1], entries[-1])


def anew(entries: list[Entry], was: dict[str, Any]) -> Entry:
    return new_entry(entries, was["kind"], was["facts"])


def forged_text(folder: Path, number: int, facts: Any) -> None:
    """As ``resealed``, for facts that only another program would write: without a check of its own."""
    import hashlib

    lines, previous = [], "0" * 64
    for turn, line in enumerate((folder / LEDGER).read_text(encoding="utf-8").split("\n")[:-1]):
        body = json.loads(line)
        body |= {"previous": previous} | ({"facts": facts} if turn == number else {})
        del body["hash"]
        plain = json.dumps(body, sort_keys=True, ensure_ascii=False)
        previous = hashlib.sha256(plain.encode()).hexdigest()
        lines.append(json.dumps(body | {"hash": previous}, sort_keys=True, ensure_ascii=False) + "\n")
    (folder / LEDGER).write_text("".join(lines), encoding="utf-8")
    head = {"entries": len(lines), "hash": previous}
    (folder / HEAD).write_text(json.dumps(head, sort_keys=True) + "\n", encoding="utf-8")


def places(facts: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every key of nested facts, and to the first item of every list; of settings and the like the first."""
    if way and way[-1] == "versions":
        return
    if isinstance(facts, dict):
        few = way and way[-1] in ("settings", "guards", "merge", "layers", "kept")
        for name in list(facts)[:1] if few else facts:
            yield (*way, name)
            yield from places(facts[name], (*way, name))
    elif isinstance(facts, list) and facts:
        yield (*way, 0)
        yield from places(facts[0], (*way, 0))


def with_another(facts: Any, way: tuple[Any, ...], value: Any) -> Any:
    """A copy of the facts with another value there, or without it."""
    found = copy.deepcopy(facts)
    inner = found
    for name in way[:-1]:
        inner = inner[name]
    if value is MISSING:
        del inner[way[-1]]
    else:
        inner[way[-1]] = value
    return found


def one_line(call: Callable[[], object], what: object) -> str:
    """What is said if it is refused; it must be one line, and of our own."""
    try:
        call()
    except UnlearnError as error:
        assert "\n" not in str(error), what
        assert len(str(error)) < 1000, what
        return str(error)
    return ""


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", range(6))
def test_facts_that_were_sealed_by_hand_are_said_in_one_line(
    number: int, every: int, copied: Path, three: Path, toy: Model
) -> None:
    facts = read(three)[number].facts
    cases = [(way, value) for way in places(facts) for value in (MISSING, *BAD)]
    for turn, (way, value) in enumerate(cases):
        if turn % every:
            continue
        what = (way, "missing" if value is MISSING else value)
        forged_text(copied, number, with_another(facts, way, value))
        said = one_line(lambda: chain.status(copied), what)
        found = chain.verify(copied)
        assert not any("\n" in line for line in found), what
        if said:
            assert f"line {number + 1}" in said, what
            assert f"line {number + 1}" in found[0], what
            continue
        one_line(lambda: chain.report(copied), what)
        one_line(lambda: chain.undo_plan(copied, undo=1), what)
        if number == 0:
            one_line(lambda: chain.add(copied, "dog", model=toy, evaluators=tools()), what)
            shutil.rmtree(copied)
            shutil.copytree(three, copied)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("init", "its kind 'init' is unknown"),
        ("sealed", "its kind 'sealed' is unknown"),
        ("undo", "has no 'removes'"),
    ],
)
def test_an_entry_of_another_kind_is_refused(kind: str, says: str, copied: Path) -> None:
    resealed(copied, 1, read(copied)[1].facts, kind)
    with pytest.raises(InputError, match=rf"line 2.*{says}"):
        chain.status(copied)


def test_a_chain_of_a_later_format_asks_for_a_newer_unlearnkit(copied: Path) -> None:
    resealed(copied, 0, {**read(copied)[0].facts, "format": 2})
    with pytest.raises(InputError, match="line 1 has format 2, and this unlearnkit reads 1: use a newer one"):
        chain.status(copied)


def test_requests_that_do_not_hold_cannot_be_taken_back(copied: Path) -> None:
    facts = read(copied)[4].facts
    resealed(copied, 4, {**facts, "removes": [9]})
    with pytest.raises(InputError, match=r"line 5.*'removes' is \[9\], not active requests"):
        chain.status(copied)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda raw: b"[" * 100_000 + raw, "line 1 is damaged"),
        (lambda raw: raw + b'{"number": 6' + b"0" * 5000 + b"}\n", "line 7 is damaged"),
        (lambda raw: raw.replace(b'"number": 5', b'"number": 1e999'), "line 6 is damaged"),
        (lambda raw: raw.replace(b'"number": 5', b'"number": NaN'), "line 6 is damaged"),
        (lambda raw: raw.replace(b"cat", b"\\ud800"), "line 2 is damaged"),
        (lambda raw: raw.replace(b"cat", b"\xff"), "line 2 is damaged"),
        (lambda raw: b"", "line 1 is damaged"),
        (lambda raw: b"[]\n", "line 1 is damaged"),
        (lambda raw: b"{}\n", "line 1 is damaged: it has no 'number'"),
    ],
)
def test_a_ledger_of_anything_else_is_damaged(
    harm: Callable[[bytes], bytes], says: str, copied: Path
) -> None:
    (copied / LEDGER).write_bytes(harm((copied / LEDGER).read_bytes()))
    for call in (chain.status, chain.log, chain.report):
        assert says in one_line(lambda call=call: call(copied), says)
    assert says in chain.verify(copied)[0]


def test_a_head_that_is_a_folder_or_cannot_be_read_is_said(copied: Path) -> None:
    (copied / HEAD).unlink()
    (copied / HEAD).mkdir()
    assert f"{HEAD}" in one_line(lambda: chain.status(copied), HEAD)
    assert "cannot be read: it is a folder" in chain.verify(copied)[0]


def damaged(path: Path, way: str, draws: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    if way == "flip":
        raw[draws.randrange(len(raw))] ^= 1 << draws.randrange(8)
    path.write_bytes(raw if way == "flip" else raw[:-1])


@pytest.mark.parametrize("way", ["flip", "cut"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))])
def test_any_flipped_bit_and_any_cut_in_any_file_is_found(way: str, seed: int, copied: Path) -> None:
    assert not chain.verify(copied)
    draws = random.Random(seed)
    every = sorted(path for path in copied.rglob("*") if path.is_file() and path.name != ".lock")
    for turn, path in enumerate(every):
        if path.suffix == ".png" and turn % 12 and not seed:
            continue
        before = path.read_bytes()
        damaged(path, way, draws)
        found = chain.verify(copied)
        assert found, (path, way)
        assert any(path.name in line for line in found), found
        path.write_bytes(before)
    assert not chain.verify(copied)


def test_a_file_that_is_missing_is_named(copied: Path) -> None:
    for path in sorted(path for path in copied.rglob("*") if path.is_file() and path.name != ".lock")[::12]:
        if path.name != LEDGER:
            before = path.read_bytes()
            path.unlink()
            assert any(path.name in line for line in chain.verify(copied)), path
            path.write_bytes(before)


def test_a_report_that_was_forged_with_fitting_hashes_is_found(copied: Path) -> None:
    from unlearnkit.chain.commands.report import _sealed

    told = json.loads((copied / "report.json").read_text(encoding="utf-8"))
    told["now"][0]["verdict"] = "holds" if told["now"][0]["verdict"] != "holds" else "relapsed"
    (copied / "report.json").write_text(_sealed(told, told["made"]), encoding="utf-8")
    assert "do not follow from the ledger" in chain.verify(copied)[0]
    (copied / "report.json").write_text(
        _sealed(told | {"attacks": {"cat": 3}}, told["made"]), encoding="utf-8"
    )
    assert "do not follow from the ledger" in chain.verify(copied)[0]


@pytest.mark.parametrize("pattern", [f"{EDITS}/*.safetensors", f"{LOOKS}/*/files.json"])
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(pattern: str, copied: Path) -> None:
    path = sorted(copied.glob(pattern))[0]
    path.unlink()
    os.mkfifo(path)
    assert any(path.name in line or "file" in line for line in chain.verify(copied))


def test_a_report_stays_right_when_the_chain_goes_on_and_moves(copied: Path, toy: Model) -> None:
    chain.add(copied, "dog", model=toy, evaluators=tools())
    moved = copied.rename(copied.with_name("elsewhere"))
    assert not chain.verify(moved)
    (moved / "report.json").unlink()
    assert "belong together" in chain.verify(moved)[0]
    chain.report(moved)
    assert not chain.verify(moved)


@pytest.mark.parametrize(
    "name", ["notes.txt", f"{EDITS}/other.safetensors", f"{LOOKS}/0123456789abcdef/x", "look"]
)
def test_files_that_are_nobodys_are_named(name: str, copied: Path) -> None:
    look = sorted((copied / LOOKS).iterdir())[0]
    path = look / "evaluation" / "extra.json" if name == "look" else copied / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    found = chain.verify(copied)
    assert len(found) == 1
    assert path.name in found[0] or path.parent.name in found[0]


def test_what_a_killed_process_left_unfinished_is_no_content_and_goes(copied: Path, toy: Model) -> None:
    look = sorted((copied / LOOKS).iterdir())[0]
    left = [
        copied / ".unlearnkit-a.part",
        copied / EDITS / ".unlearnkit-b.part",
        look / ".unlearnkit-c.part",
        look / "evaluation" / ".unlearnkit-d.part",
    ]
    for path in left:
        path.write_text("unfinished")
    assert not chain.verify(copied)
    chain.add(copied, "dog", model=toy, evaluators=tools())
    assert not any(path.exists() for path in left)


def test_what_a_kill_after_the_line_of_the_ledger_left_to_do_is_done_by_the_next_command(
    copied: Path, toy: Model
) -> None:
    lines = (copied / LEDGER).read_bytes().splitlines(keepends=True)
    head = (copied / HEAD).read_bytes()
    before = json.loads(lines[-2])
    ahead = json.dumps({"entries": len(lines) - 1, "hash": before["hash"]}, sort_keys=True) + "\n"
    (copied / HEAD).write_text(ahead)
    stale = copied / WORK / "stale"
    stale.mkdir(parents=True)
    (stale / "request.json").write_text(json.dumps({"head": before["hash"]}))
    (copied / EDITS / "stale.safetensors").touch()
    assert not chain.verify(copied)
    with pytest.raises(InputError, match="is erased already"):
        chain.add(copied, "cat", model=toy, evaluators=tools())
    assert (copied / HEAD).read_bytes() == head
    assert not (copied / WORK).exists()
    assert not (copied / EDITS / "stale.safetensors").exists()
    assert not chain.verify(copied)


def test_work_of_the_chain_as_it_is_stays(copied: Path, toy: Model) -> None:
    last = json.loads((copied / LEDGER).read_text(encoding="utf-8").splitlines()[-1])
    for name, head in (("a", "0" * 64), ("b", last["hash"])):
        (copied / WORK / name).mkdir(parents=True)
        (copied / WORK / name / "request.json").write_text(json.dumps({"head": head}))
    chain.report(copied)
    assert sorted(path.name for path in (copied / WORK).iterdir()) == ["a", "b"]


def test_a_clock_that_went_back_is_said_and_never_written(
    copied: Path, toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = read(copied)[3].facts
    resealed(copied, 3, {**facts, "time": "2016-01-01T00:00:00Z"})
    found = [line for line in chain.verify(copied) if "clock" in line]
    assert len(found) == 1
    assert "line 4 is of 2016-01-01T00:00:00Z, the line before it of 20" in found[0]
    last = read(copied)[-1].facts["time"]
    monkeypatch.setattr("time.gmtime", lambda *_: (2001, 1, 1, 0, 0, 0, 0, 1, 0))
    assert chain.add(copied, "dog", model=toy, evaluators=tools()).facts["time"] == last


@pytest.mark.parametrize("place", [LEDGER, HEAD, "report.html", EDITS, LOOKS, WORK, "inside", ".lock"])
def test_nothing_is_written_through_a_link(place: str, copied: Path, tmp_path: Path, toy: Model) -> None:
    outside = tmp_path / "outside"
    path = sorted((copied / EDITS).iterdir())[0] if place == "inside" else copied / place
    if path.exists():
        path.rename(outside)
    elif place == WORK:
        outside.mkdir()
    else:
        outside.write_text("a file of somebody")
    path.symlink_to(outside, target_is_directory=outside.is_dir())
    before = files(outside) if outside.is_dir() else outside.read_bytes()
    listed = sorted(outside.rglob("*"))
    for call in (
        lambda: chain.add(copied, "dog", model=toy, evaluators=tools()),
        lambda: chain.report(copied),
        lambda: chain.undo(copied, model=toy, evaluators=tools()),
    ):
        said = one_line(call, place)
        assert "symbolic link" in said or "cannot be written" in said
    assert sorted(outside.rglob("*")) == listed
    assert (files(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_a_word_that_the_first_model_never_showed_does_not_hold(copied: Path) -> None:
    never = {"k": 0, "n": 20, "value": 0.0, "low": 0.0, "high": 0.1}
    shown = {"k": 20, "n": 20, "value": 1.0, "low": 0.9, "high": 1.0}

    def seen(before: Any, then: Any, now: Any) -> str:
        for number, after in ((1, then), (5, now)):
            facts = read(copied)[number].facts
            look = {**facts["look"], "seen": {"cat": {"before": before, "after": after}}}
            resealed(copied, number, {**facts, "look": look})
        (line,) = chain.status(copied).lines
        return line.verdict

    assert seen(never, never, never) == "never shown"
    assert chain.status(copied).lines[0].holds is None
    page = chain.report(copied).read_text(encoding="utf-8")
    assert "0 hold, 0 relapsed, 1 never shown" in page
    assert json.loads((copied / "report.json").read_text(encoding="utf-8"))["now"] == [
        {"concept": "cat", "request": 1, "verdict": "never shown"}
    ]
    assert seen(shown, never, never) == "holds"
    assert seen(shown, never, shown) == "relapsed"
    assert seen(shown, shown, shown) == "still seen"


def test_a_chain_of_an_earlier_version_opens_verifies_and_goes_on(copied: Path, toy: Model) -> None:
    """Its looks have no list of files, its lock another name, and it has no report."""
    for number, entry in enumerate(read(copied)):
        if look := entry.facts.get("look"):
            resealed(copied, number, with_another(entry.facts, ("look", "files"), MISSING))
            (copied / LOOKS / look["folder"] / "files.json").unlink()
    (copied / ".lock").rename(copied / "lock")
    for name in ("report.html", "report.json"):
        (copied / name).unlink()
    assert not chain.verify(copied, redraw=1.0, model=toy)
    chain.add(copied, "dog", model=toy, evaluators=tools())
    assert not chain.verify(copied, redraw=1.0, model=toy)
    assert not (copied / "lock").exists()


def test_names_are_printed_without_moving_the_cursor(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = read(copied)[1].facts
    for name, code in (("cat\x1b[2J\nrequest 9", 2), ("cat [bold]holds[/bold]", 0)):
        resealed(copied, 1, with_another(facts, ("request", "erase", 0, "name"), name))
        for command in ("log", "status"):
            with pytest.raises(SystemExit) as stopped:
                main(["chain", command, str(copied)])
            told = "".join(capsys.readouterr())
            assert "\x1b[2J" not in told
            assert "\nrequest 9" not in told
            assert stopped.value.code == code
            assert code == 2 or "[bold]holds" in told


@pytest.mark.parametrize("share", ["inf", "nan", "900%", "-5%", "0", "0%", "101%", "1.01", "x", "%", "1e400"])
def test_a_share_is_more_than_nothing_and_at_most_all(
    share: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["chain", "verify", str(copied)], ["verify", str(copied)]):
        with pytest.raises(SystemExit) as stopped:
            main([*command, "--redraw", share])
        told = capsys.readouterr()
        assert stopped.value.code == 2
        assert "the share" in told.err
        assert told.err.count("\n") == 1


def test_the_python_call_takes_no_other_share_either(copied: Path) -> None:
    for share in (float("nan"), float("inf"), -0.05, 9.0):
        with pytest.raises(InputError, match="the share to redraw is"):
            chain.verify(copied, redraw=share)


@pytest.mark.parametrize("name", ["é" * 300, "x/" * 3000, "a\0b"])
def test_a_name_that_no_file_system_takes_is_refused(name: str, toy: Model, tmp_path: Path) -> None:
    folder = str(tmp_path / name)
    for call in (chain.status, chain.log, chain.verify, chain.report, chain.edit):
        assert one_line(lambda call=call: call(folder), name)
    for call in (
        lambda: chain.init(folder, toy, pictures=0),
        lambda: chain.add(folder, "cat", model=toy),
        lambda: chain.undo(folder, model=toy),
        lambda: chain.build(folder, tmp_path / "out", model=toy),
    ):
        assert one_line(call, name)


def test_a_home_folder_is_meant_by_a_tilde(
    toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    chain.init("~/p", toy, pictures=0)
    assert (tmp_path / "p" / LEDGER).is_file()
    assert not chain.status("~/p").lines


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """As an ordinary user, for whom alone permissions hold."""
    let_in(folder)
    ourselves = os.geteuid()
    if ourselves == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(ourselves)


@pytest.mark.parametrize("place", ["", LEDGER, HEAD, EDITS, LOOKS])
def test_a_chain_that_cannot_be_read_is_said(place: str, copied: Path, toy: Model) -> None:
    path = copied / place
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with as_nobody(copied.parent):
            assert "permission" in (one_line(lambda: chain.verify(copied), place) or chain.verify(copied)[0])
            for call in (chain.status, chain.report, lambda folder: chain.edit(folder, model=toy)):
                said = one_line(lambda call=call: call(copied), place)
                assert "permission" in said or not said
                assert said or place in (EDITS, LOOKS)
    finally:
        path.chmod(mode)


def classifier(folder: Path) -> None:
    """A toy classifier of transformers, saved."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)


def test_a_reader_by_a_relative_path_is_found_from_anywhere(
    toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    classifier(tmp_path / "reader")
    chain.init("p", toy, method="uce", pictures=1, objects="reader")
    assert read(tmp_path / "p")[0].facts["looks"]["objects"] == str(tmp_path / "reader")
    monkeypatch.chdir("/")
    chain.add(tmp_path / "p", "cat", model=toy)
    facts = read(tmp_path / "p")[0].facts
    resealed(tmp_path / "p", 0, with_another(facts, ("looks", "objects"), "reader"))  # as it was once written
    chain.add(tmp_path / "p", "dog", model=toy)


@pytest.mark.parametrize("reader", ["./reader", "reader.safetensors", "/nowhere/reader"])
def test_a_reader_that_is_not_there_is_said_before_work(
    reader: str, copied: Path, toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        chain.init(tmp_path / "p", toy, pictures=1, objects=reader)
    assert not (tmp_path / "p").exists()
    facts = read(copied)[0].facts
    resealed(copied, 0, with_another(facts, ("looks", "objects"), reader))
    before = sorted((copied / EDITS).iterdir())
    stages: list[str] = []
    with pytest.raises(UnlearnError):
        chain.add(copied, "dog", method="esd", model=toy, tick=lambda *told: stages.append(told[0]))
    assert not stages
    assert sorted((copied / EDITS).iterdir()) == before


def test_a_request_that_is_half_done_with_other_settings_is_refused(toy: Model, tmp_path: Path) -> None:
    quick = {"steps": 3, "lr": 1e-3, "batch": 2, "start_steps": 2, "trains": "xattn"}
    project = begun(tmp_path / "p", toy, settings=quick, pictures=1)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "drawing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain.add(project, "cat", model=toy, evaluators=tools(), tick=stop)
    (place,) = (project / WORK).iterdir()
    assert list(place.glob("*.safetensors"))
    with pytest.raises(
        InputError, match=r"'cat' is unfinished with another lr \(0.001, now 0.002\): use the same"
    ):
        chain.add(project, "cat", settings={"lr": 2e-3}, model=toy)
    assert not chain.verify(project)
    with pytest.raises(InputError, match=r"unfinished with another seed \(0, now 1\)"):
        chain.add(project, "cat", seed=1, model=toy)
    with pytest.raises(InputError, match=r"unfinished with another instead \(None, now 'dog'\)"):
        chain.add(project, "cat", instead="dog", model=toy)
    shutil.rmtree(place)
    chain.add(project, "cat", seed=1, model=toy, evaluators=tools())
    assert not chain.verify(project)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_a_bad_seed_is_refused_before_any_work(toy: Model, tmp_path: Path, seed: object) -> None:
    project = begun(tmp_path / "p", toy, pictures=0)
    with pytest.raises(InputError, match=r"seed .* use 0 to 2\*\*63 - 1"):
        chain.add(project, "cat", seed=seed, model=toy)  # type: ignore[arg-type]
    assert not (project / WORK).exists()
