"""Models on the hub: the index is checked before anything else is fetched, and one line says what is in the way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import hub_server
import tiny

ROOT = Path(__file__).parents[1]
OPEN = """
import sys
from unlearnkit import ModelError, load
for name in sys.argv[1:]:
    try:
        print(name, load(name, device="cpu").fingerprint()[:8])
    except ModelError as error:
        print(name, error)
"""


def opened(cache: Path, address: str, *names: str, **more: str) -> tuple[list[str], str]:
    """What comes of opening these models in a fresh process, one line each, and what it printed beside."""
    unset = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"HF_ENDPOINT": address, "HF_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    env |= {"TRANSFORMERS_VERBOSITY": "error"} | more  # as the command line has it
    done = subprocess.run([sys.executable, "-c", OPEN, *names], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_the_hub_gives_what_a_checked_index_names_and_says_why_it_does_not(tmp_path: Path) -> None:
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
    with hub_server.serving(models, asked) as address:
        said, noise = opened(
            tmp_path / "cache", address, "a/plain", "a/half", "a/hostile", "a/empty", "a/nowhere"
        )
    assert noise == ""
    plain, half, hostile, empty, nowhere = said
    assert plain.split()[1] == half.split()[1] and len(plain.split()) == 2
    assert "names 'Thing' of 'helper' as its 'vae'" in hostile
    assert "has no model_index.json on the hub" in empty
    assert "the hub has no such model that you may read" in nowhere
    wanted = {path.split("?")[0] for path in asked if "/hostile/" in path}
    assert {path.rsplit("/", 1)[1] for path in wanted} == {"model_index.json"}
    assert not any("plain/" in path and "fp16" in path for path in asked)
    # what was fetched opens without the hub, and with it switched off
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}"
        again, noise = opened(tmp_path / "cache", gone, "a/half", "a/other")
        off, _ = opened(tmp_path / "cache", gone, "a/half", "a/other", HF_HUB_OFFLINE="1")
    assert noise == ""
    assert again[0] == off[0] == half
    assert "the hub cannot be reached: check the connection" in again[1]
    assert "the local cache does not have it" in off[1] and "the hub is switched off" in off[1]
