"""What a caller has set for his own work (dtype, device, grad mode, locale) changes no edit and no picture."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_contract import REQUEST
from test_families import SIZE, settings_of, trains

import kinds
import saved
import unlearnkit
from unlearnkit import chain
from unlearnkit.errors import ModelError
from unlearnkit.methods import METHODS, edit_for
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import sample_latents
from unlearnkit.runs.estimate import estimate
from unlearnkit.runs.requests import request_for
from unlearnkit.schema import Recipe

QUICK: dict[str, Any] = {"steps": 2, "lr": 1e-3, "batch": 2}


@contextmanager
def dtype(name: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(name)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


AMBIENT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "bfloat16": lambda: dtype(torch.bfloat16),
    "float64": lambda: dtype(torch.float64),
    "meta": lambda: device("meta"),
    "a device around": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}
every = pytest.mark.parametrize("ambient", AMBIENT)


@contextmanager
def together() -> Iterator[None]:
    """Several of them at once."""
    with dtype(torch.bfloat16), device("meta"), torch.inference_mode():
        yield


def made(model: Model, method: str) -> str:
    settings = settings_of(method, **({"steps": 1} if trains(method) else {}))
    return edit_for(model, REQUEST, method=method, settings=settings).hash()


@pytest.fixture(scope="module")
def plainly() -> dict[str, Any]:
    """What comes out with nothing set."""
    return outcome()


def outcome() -> dict[str, Any]:
    """Load, erase, draw and look, all of it through the public doors."""
    folder = saved.folder()
    edit = unlearnkit.erase(folder, "cat", method="esd", start_steps=2, **QUICK)
    model = load(folder)
    with model.wearing(edit):
        worn, picture = model.fingerprint(), model.sample(["cat"], [3], batch=1)[0].tobytes()
    noise = torch.ones(1, *model.shape, dtype=torch.float32, device="cpu")
    t, states = torch.tensor([500], device="cpu"), model.encode(["cat"])
    predicted = model.predict(noise, t, states)
    cost = estimate(model, Recipe("tiny", "esd", request_for("cat"), QUICK))
    return {
        "edit": edit.hash(),
        "worn": worn,
        "picture": picture,
        "latents": sample_latents(model, ["cat"], [3], steps=2, guidance=2.0).tolist(),
        "predicted": predicted.tolist(),
        "weights": cost.plan.weights,
        "inference": predicted.is_inference() or states.is_inference(),
    }


@every
def test_nothing_that_is_set_around_it_changes_what_comes_out(ambient: str, plainly: dict[str, Any]):
    state = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    with AMBIENT[ambient]():
        inside = (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())
        found = outcome()
        after = (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())
    assert found == plainly
    assert after == inside, "and it is as the caller set it"
    assert state == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_method_reads_what_is_set_around_it(method: str, make: Callable[..., Model]):
    model = make()
    plain = made(model, method)
    with together():
        assert made(model, method) == plain


@pytest.mark.parametrize("title", kinds.KINDS)
def test_no_family_reads_what_is_set_around_it(title: str, words: Path):
    model = Model(kinds.pipeline(title, words), hints=SIZE)
    plain, picture = made(model, "esd"), model.sample(["cat"], [1], steps=2)[0].tobytes()
    pipe = kinds.pipeline(title, words)
    with together():
        again = Model(pipe, hints=SIZE)
        assert made(again, "esd") == plain
        assert again.sample(["cat"], [1], steps=2)[0].tobytes() == picture


def test_a_pipeline_made_inside_inference_mode_is_refused(words: Path):
    with torch.inference_mode():
        pipe = kinds.pipeline("Stable Diffusion 1.x/2.x", words)
    with pytest.raises(
        ModelError, match=r"the vae was made inside torch\.inference_mode: load the pipeline outside"
    ):
        Model(pipe)


def test_a_chain_is_the_same_whatever_is_set_around_it(model: Model, tmp_path: Path):
    found = []
    for number, around in enumerate((nullcontext, together)):
        folder = tmp_path / str(number)
        with around():
            chain.init(folder, model, method="uce", pictures=0)
            chain.add(folder, "cat", model=model)
            entry = chain.add(folder, "dog", model=model)
            found.append(
                (entry.facts["weights"], entry.facts["drift"], chain.edit(folder, model=model).hash())
            )
    assert found[0] == found[1]


PROGRAM = """
import locale, sys
from contextlib import suppress
for name in ("tr_TR.UTF-8", "de_DE.UTF-8", "C.UTF-8"):
    with suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, name)
        break
import unlearnkit
edit = unlearnkit.erase(sys.argv[1], "INK", method="esd", keep=["Cat"], start_steps=2, steps=2, lr=1e-3, batch=2)
print(edit.hash())
print(*[name for name in sys.modules if name.startswith("unlearnkit.canvas.")], "are loaded by erasing")
import unlearnkit.attacks
from unlearnkit.attacks import drawing
print(*[name for name in sys.modules if name in sys.argv[2:]], "are loaded by attacking")
"""
JUDGE = ("unlearnkit.canvas.held_out", "unlearnkit.canvas.evaluators")


def test_neither_the_locale_nor_the_order_of_hashes_changes_an_edit_and_no_judge_is_loaded():
    settings = {"start_steps": 2, **QUICK}
    plain = unlearnkit.erase(saved.folder(), "INK", method="esd", keep=["Cat"], **settings).hash()
    own = {"PYTHONHASHSEED": "77", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0"}
    words = [sys.executable, "-c", PROGRAM, str(saved.folder()), *JUDGE]
    done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()[-3:]
    assert lines == [plain, "are loaded by erasing", "are loaded by attacking"]
