"""Models on the hub: the index is checked before anything else is fetched, and one line says what is in the way."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

import hub_server
import tiny
from alone import asking
from unlearnkit.errors import ModelError
from unlearnkit.model.load import load

ROOT = Path(__file__).parents[1]
OPEN = """
import sys
from unlearnkit import ModelError, load
for line in sys.stdin:
    for name in line.split():
        try:
            print(name, load(name, device="cpu").fingerprint()[:8], flush=True)
        except ModelError as error:
            print(name, error, flush=True)
"""


@contextlib.contextmanager
def opening(place: Path, address: str) -> Iterator[Callable[..., list[str]]]:
    """What comes of opening models in a fresh process, one line each; it must print nothing beside."""
    unset = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"HF_ENDPOINT": address, "HF_HOME": str(place / "cache"), "PYTHONPATH": str(ROOT)}
    env |= {"TRANSFORMERS_VERBOSITY": "error"}  # as the command line has it
    with asking(OPEN, place, env=env) as process:

        def opened(*names: str) -> list[str]:
            print(*names, file=process.stdin, flush=True)
            return [process.stdout.readline() for _ in names]

        yield opened
    assert (place / "errors").read_text() == ""
    assert process.returncode == 0


def test_the_hub_gives_what_a_checked_index_names_and_says_why_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, asked = tmp_path / "models", list[str]()
    pipe = tiny.pipeline(tmp_path / "words")
    pipe.save_pretrained(models / "a" / "plain")
    pipe.save_pretrained(models / "a" / "plain", variant="fp16")
    pipe.save_pretrained(models / "a" / "half", variant="fp16")
    pipe.save_pretrained(models / "a" / "hostile")
    (models / "a" / "hostile" / "vae" / "helper.py").write_text("raise SystemExit(3)")
    index = models / "a" / "hostile" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"vae": ["helper", "Thing"]}))
    (models / "a" / "empty").mkdir()
    with contextlib.ExitStack() as ends:
        with hub_server.serving(models, asked) as address:
            opened = ends.enter_context(opening(tmp_path, address))
            plain, half, hostile, empty, nowhere = opened(
                "a/plain", "a/half", "a/hostile", "a/empty", "a/nowhere"
            )
        # what was fetched opens when the hub is gone
        again, other = opened("a/half", "a/other")
    assert plain.split()[1] == half.split()[1] and len(plain.split()) == 2
    assert "names 'Thing' of 'helper' as its 'vae'" in hostile
    assert "has no model_index.json on the hub" in empty
    assert "the hub has no such model that you may read" in nowhere
    wanted = {path.split("?")[0] for path in asked if "/hostile/" in path}
    assert {path.rsplit("/", 1)[1] for path in wanted} == {"model_index.json"}
    assert not any("plain/" in path and "fp16" in path for path in asked)
    assert again == half
    assert "the hub cannot be reached: check the connection" in other
    # and with the hub switched off, as it is in this process
    assert os.environ["HF_HUB_OFFLINE"] == "1" and constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    assert load("a/half", device="cpu").fingerprint()[:8] == half.split()[1]
    with pytest.raises(ModelError, match=r"the local cache does not have it .* the hub is switched off"):
        load("a/other", device="cpu")
