"""Chains on toy pipelines: what every regime is, that requests are taken back exactly, and that nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_bad_input import files_no_larger_than, let_in

from unlearnkit import chain
from unlearnkit.canvas.classifier import CanvasClassifier
from unlearnkit.chain.ledger import LEDGER
from unlearnkit.chain.project import EDITS, LOOKS, WORK, open_chain
from unlearnkit.chain.weights import current_edit, edit_of
from unlearnkit.errors import DivergedError, EditError, InputError
from unlearnkit.io.locks import locked
from unlearnkit.methods import edit_for
from unlearnkit.metrics.evaluators import evaluators_of
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request

QUICK: dict[str, Any] = {"steps": 2, "lr": 1e-3, "batch": 2, "start_steps": 2, "trains": "xattn"}
NAMES = ("cat", "car", "bear")
UNGUARDED = {"bank": 0, "replay": 0}


def begun(folder: Path, model: Model, regime: str = "sequential", **changes: Any) -> Path:
    """A chain that looks at nothing and erases with a few steps of ESD."""
    options: dict[str, Any] = {
        "method": "esd",
        "settings": QUICK,
        "guards": UNGUARDED,
        "pictures": 0,
        **changes,
    }
    chain.init(folder, model, regime=regime, **options)
    return folder


def printed(model: Model, weights: dict[str, torch.Tensor]) -> str:
    with model.wearing(weights):
        return model.fingerprint()


def files(folder: Path) -> dict[str, bytes]:
    """Everything that counts in a chain."""
    kept = [folder / LEDGER, folder / "head.json", *(folder / EDITS).glob("*"), *(folder / LOOKS).rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept if path.is_file()}


def test_a_sequence_is_erasing_from_what_the_last_left(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model)
    chain.add(project, "cat", model=model)
    entry = chain.add(project, Concept("neon", "style"), seed=3, model=model)
    first = edit_for(model, Request((Concept("cat"),)), method="esd", settings=QUICK)
    with model.wearing(first):
        neon = Request((Concept("neon", "style"),))
        second = edit_for(model, neon, method="esd", settings=QUICK, seed=3)
    both = first.weights | second.weights
    assert entry.facts["weights"] == printed(model, both)
    edit = chain.edit(project, model=model)
    assert edit.weights.keys() == both.keys()
    assert all(torch.equal(edit.weights[name], both[name]) for name in both)
    assert entry.facts["edit"]["hash"] == second.hash()


def test_replaced_weights_are_left_out_and_guards_are_not(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, settings={}, guards={})
    for name, method in (("cat", "adavd"), ("bear", "speed"), ("car", "esd"), ("dog", "esd")):
        settings = QUICK if method == "esd" else {}
        chain.add(project, name, method=method, settings=settings, guards=UNGUARDED, model=model)
    opened = open_chain(project)
    every = [edit_of(opened, step) for step in opened.steps]
    edit = current_edit(opened, model, opened.steps)
    weights = {name: value for one in every for name, value in one.weights.items()}
    assert edit.weights.keys() == weights.keys()
    assert all(torch.equal(edit.weights[name], weights[name]) for name in weights)
    assert (
        [hook.name for hook in edit.hooks] == [hook.name for one in every for hook in one.hooks] == ["values"]
    )


def test_joint_is_erasing_everything_at_once(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, "joint")
    chain.add(project, "cat", keep=["dog"], model=model)
    entry = chain.add(project, "dog", model=model)
    request = Request((Concept("cat"), Concept("dog")))  # what one keeps and the other erases is erased
    assert entry.facts["edit"]["hash"] == edit_for(model, request, method="esd", settings=QUICK).hash()


def test_merged_edits_are_made_alone_and_added(model: Model, tmp_path: Path) -> None:
    merge = {"rule": "arithmetic", "scale": (0.5,)}
    project = begun(tmp_path / "p", model, "merged", merge=merge, method="uce", settings={})
    for name in NAMES[:2]:
        chain.add(project, name, model=model)
    edits = [edit_for(model, Request((Concept(name),)), method="uce").weights for name in NAMES[:2]]
    found = chain.edit(project, model=model).weights
    for name, weight in found.items():
        start = model.weights("all")[name].detach()
        by_hand = start + 0.5 * (edits[0][name] - start) + 0.5 * (edits[1][name] - start)
        torch.testing.assert_close(weight, by_hand, rtol=0, atol=1e-6)


@pytest.mark.parametrize("regime", ["sequential", "joint", "merged"])
def test_taking_back_gives_the_model_of_a_chain_without_it(regime: str, model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, regime, guards={"replay": 2, "bank": 2})
    for name in NAMES:
        chain.add(project, name, model=model)
    plan = chain.undo_plan(project, drop=[2])
    assert plan.remade == {"sequential": (3,), "joint": (3,), "merged": ()}[regime]
    assert ("exact" in str(plan)) == (regime == "merged")
    dropped = chain.drop(project, 2, model=model)
    fresh = begun(tmp_path / "fresh", model, regime, guards={"replay": 2, "bank": 2})
    one = chain.add(fresh, NAMES[0], model=model)
    two = chain.add(fresh, NAMES[2], model=model)
    assert dropped.facts["weights"] == two.facts["weights"]
    assert chain.undo_plan(project, undo=1).remade == ()
    assert chain.undo(project, model=model).facts["weights"] == one.facts["weights"]
    assert chain.undo(project, model=model).facts["weights"] == model.fingerprint()
    assert not chain.edit(project, model=model).weights
    assert chain.add(project, NAMES[0], model=model).facts["weights"] == one.facts["weights"]
    assert not chain.verify(project)
    assert [entry.kind for entry in chain.log(project)] == [
        "init",
        "add",
        "add",
        "add",
        "drop",
        "undo",
        "undo",
        "add",
    ]


def test_an_edit_is_stored_once(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, method="uce", settings={})
    chain.add(project, "cat", model=model)
    chain.undo(project, model=model)
    chain.add(project, "cat", model=model)
    assert len(list((project / EDITS).iterdir())) == 1
    assert not (project / WORK).exists()


def test_a_failing_request_changes_nothing_and_is_gone_on_with(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = begun(tmp_path / "p", model)
    chain.add(project, "cat", model=model)
    before = files(project)
    with pytest.raises(DivergedError):
        chain.add(project, "car", settings={"lr": 1e12}, model=model)
    assert files(project) == before
    told: list[str] = []

    def stop(stage: str, done: int, total: int) -> None:
        told.append(stage)
        if stage == "training" and done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain.add(project, "car", model=model, tick=stop)
    assert files(project) == before
    assert list((project / WORK).rglob("log.jsonl"))
    chain.add(project, "car", model=model)
    assert not (project / WORK).exists()
    assert not chain.verify(project, redraw=1.0, model=model)


def test_what_cannot_be_asked_is_refused_in_one_line(
    model: Model, make: Callable[..., Model], tmp_path: Path
) -> None:
    project = begun(tmp_path / "p", model)
    chain.add(project, "cat", phrases=["kitten"], model=model)
    for words, match in (
        ({"concept": "kitten"}, "is erased already, by request 1"),
        ({"concept": "car", "keep": ["cat"]}, "cannot be kept: request 1 erased it"),
        ({"concept": "car", "instead": "cat"}, "was erased by request 1"),
        ({"concept": "car", "method": "esdd"}, "did you mean 'esd'"),
        ({"concept": "car", "settings": {"stepps": 1}}, "did you mean 'steps'"),
        ({"concept": "car", "guards": {"bnak": 1}}, "did you mean 'bank'"),
        (
            {"concept": "car", "settings": {"trains": "lora"}, "guards": {"project": 1, "free": 0.0}},
            "no rule of a chain",
        ),
        (
            {"concept": "car", "guards": {"l2sp_first": 1.0}},
            "'l2sp_first' of guards was removed: leave it out",
        ),
    ):
        with pytest.raises(InputError, match=match):
            chain.add(project, model=model, **words)
    with pytest.raises(InputError, match="put the base model back"):
        chain.add(project, "car", model=make(seed=5))
    with pytest.raises(InputError, match=r"request 2 is not active in .*: active are 1"):
        chain.drop(project, 2, model=model)
    for count in (0, 2, -1):
        with pytest.raises(
            InputError, match=rf"{count} requests cannot be undone: 1 are active .*use 1 to 1"
        ):
            chain.undo(project, count, model=model)
    with pytest.raises(InputError, match="is not empty"):
        begun(project, model)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: choose a new folder"):
        begun(tmp_path / "file", model)
    with pytest.raises(InputError, match="is no chain"):
        chain.add(tmp_path, "car", model=model)
    with pytest.raises(InputError, match="regime 'sequence' is unknown"):
        begun(tmp_path / "q", model, "sequence")
    assert len(chain.log(project)) == 2


def test_two_processes_cannot_write_one_chain(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model)
    with (
        locked(project),
        pytest.raises(
            InputError, match=rf"another process \({os.getpid()} on .* is writing in .* wait until it is done"
        ),
    ):
        chain.add(project, "cat", model=model)
    assert chain.status(project).lines == ()
    chain.add(project, "cat", method="uce", model=model)


def test_a_full_disk_loses_nothing(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, method="uce", settings={})
    chain.add(project, "cat", model=model)
    before = files(project)
    for size in (3, 2000):
        with (
            files_no_larger_than(size),
            pytest.raises(InputError, match=r"cannot be written|is full"),
        ):
            chain.add(project, "car", model=model)
        assert files(project) == before, size
    chain.add(project, "car", model=model)
    assert not chain.verify(project)


def test_a_folder_that_may_only_be_read_loses_nothing(model: Model, tmp_path: Path) -> None:
    """As an ordinary user, for whom alone permissions hold."""
    project = begun(tmp_path / "p", model, method="uce", settings={})
    chain.add(project, "cat", model=model)
    before, ourselves = files(project), os.geteuid()
    inside = [project, *project.rglob("*")]
    modes = {path: path.stat().st_mode for path in inside}
    let_in(tmp_path)
    try:
        for path in inside:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if ourselves == 0:
            os.seteuid(65534)
        with pytest.raises(InputError, match="cannot be written") as refused:
            chain.add(project, "car", model=model)
        assert "\n" not in str(refused.value)
        assert [line.concept for line in chain.status(project).lines] == ["cat"]
        assert not chain.verify(project)
    finally:
        os.seteuid(ourselves)
        for path, mode in modes.items():
            path.chmod(mode)
    assert files(project) == before
    chain.add(project, "car", model=model)
    assert not chain.verify(project)


@pytest.mark.parametrize("turn", range(5))
def test_any_changed_byte_of_an_edit_is_found(turn: int, model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, method="uce", settings={})
    chain.add(project, "cat", model=model)
    path = next((project / EDITS).iterdir())
    raw = bytearray(path.read_bytes())
    raw[(turn * len(raw)) // 5] ^= 4
    path.write_bytes(raw)
    assert chain.verify(project) == [f"{EDITS}/{path.name} was changed"]
    with pytest.raises(EditError, match="was changed: put a copy back, or drop request 1"):
        chain.add(project, "car", model=model)
    path.unlink()
    assert chain.verify(project) == [f"{EDITS}/{path.name} is missing"]
    chain.drop(project, 1, model=model)


def test_the_head_can_be_kept_elsewhere(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, method="uce", settings={})
    chain.add(project, "cat", model=model)
    head = chain.status(project).head
    assert not chain.verify(project, head=head)
    chain.undo(project, model=model)
    assert "the ledger ends with" in chain.verify(project, head=head)[0]


def test_it_is_looked_at_after_every_entry(model: Model, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tools = evaluators_of(
            CanvasClassifier("plain", ["cat", "dog", "bear", "car"], ["van gogh", "neon"]).eval(), "eye@0"
        )
    project = begun(tmp_path / "p", model, method="uce", settings={}, pictures=2)
    chain.add(project, "cat", model=model, evaluators=tools)
    entry = chain.add(project, Concept("neon", "style"), model=model, evaluators=tools)
    look = entry.facts["look"]
    assert set(look["seen"]) == {"cat", "neon"}
    assert set(look["kept"]) >= {"unrelated objects"}
    pictures = project / LOOKS / look["folder"] / "evaluation" / "pictures"
    assert len(list(pictures.rglob("*.png"))) == look["pictures"]
    shared = next((pictures / "before").iterdir())
    assert shared.stat().st_nlink == 2, "the base model's pictures are stored once"
    lines = chain.status(project).lines
    assert [line.concept for line in lines] == ["cat", "neon"]
    assert all(line.verdict for line in lines)
    assert not chain.verify(project, redraw=0.2, model=model)
    page = chain.report(project).read_text(encoding="utf-8")
    assert "2 concepts erased" in page
    assert page.count("data:image/png") >= 6
    assert chain.report(project).read_text(encoding="utf-8") == page
    picture = next((pictures / "after").iterdir())
    picture.write_bytes(picture.read_bytes()[:-9] + b"damaged!!")
    picture.unlink()
    assert any(LOOKS in line and picture.name in line for line in chain.verify(project))
    chain.undo(project, 2, model=model, evaluators=tools)
    assert chain.log(project)[-1].facts["look"] is None


def test_a_chain_without_a_look_has_no_report(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model)
    with pytest.raises(InputError, match="has no evaluation"):
        chain.report(project)


def test_it_is_built_as_a_pipeline_with_its_ledger(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, method="uce", settings={})
    entry = chain.add(project, "cat", model=model)
    chain.build(project, tmp_path / "built", model=model)
    from unlearnkit.model.load import load

    assert load(tmp_path / "built").fingerprint() == entry.facts["weights"]
    assert (tmp_path / "built" / "unlearnkit-ledger.jsonl").read_bytes() == (project / LEDGER).read_bytes()
    with pytest.raises(InputError, match="exists already"):
        chain.build(project, tmp_path / "built", model=model)


def killed_after(seconds: float, run: Callable[[], object]) -> bool:
    """Run in a forked process that is killed after so long; whether the kill came before its end."""
    end = time.monotonic() + seconds
    return killed_when(lambda: time.monotonic() >= end, run)


def killed_when(met: Callable[[], bool], run: Callable[[], object]) -> bool:
    """Run in a forked process that is killed once a condition is met; whether the kill came before its end."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    ended, status = 0, 0
    while not (ended or met()):
        time.sleep(0.005)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.mark.parametrize("count", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_opens_verifies_and_completes_to_the_same_weights(
    count: int, model: Model, tmp_path: Path
) -> None:
    def erase(project: Path, name: str) -> None:
        chain.add(project, name, guards={"replay": 2}, model=model)

    for name in ("first", "whole"):  # the first draws the pictures that all others find in the cache
        whole = begun(tmp_path / name, model, pictures=1)
        erase(whole, "cat")
        begun_with = Path(shutil.copytree(whole, tmp_path / f"{name}-begun"))
        start = time.monotonic()
        erase(whole, "car")
        took = time.monotonic() - start
    wanted = open_chain(whole).weights
    kills = 0
    for turn in range(count):
        project = Path(shutil.copytree(begun_with, tmp_path / f"p{turn}"))
        moment = took * 1.1 * ((turn + 0.5) / count)
        kills += killed_after(moment, lambda project=project: erase(project, "car"))
        assert not chain.verify(project)
        if len(open_chain(project).steps) == 1:
            erase(project, "car")
        assert open_chain(project).weights == wanted
        assert not chain.verify(project)
    assert kills  # how many end in time depends on the machine


def test_fifty_requests_cost_and_take_no_more_than_in_proportion(model: Model, tmp_path: Path) -> None:
    project = begun(tmp_path / "p", model, "merged", method="uce", settings={})
    taken = []
    for number in range(50):
        start = time.process_time()
        chain.add(project, f"t{number}", model=model)
        taken.append(time.process_time() - start)
    first, last = sum(taken[5:15]) / 10, sum(taken[40:]) / 10
    assert last < 6 * first  # four to five times as many requests
    sizes = [path.stat().st_size for path in (project / EDITS).iterdir()]
    assert len(sizes) == 50
    assert max(sizes) < 1.5 * min(sizes)
    start = time.process_time()
    assert len(chain.status(project).lines) == 50
    assert time.process_time() - start < 0.5
