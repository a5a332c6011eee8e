"""A real evaluation on the canvas: however it is divided, and even if it is killed, it finds the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearnkit.canvas import WEIGHTS
from unlearnkit.evaluation.draw import read
from unlearnkit.evaluation.verify import redraw, verify
from unlearnkit.runs.run import erase
from unlearnkit.schema import Concept

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (WEIGHTS / "judge").is_dir(), reason="no weights are shipped yet"),
]

SCRIPT = """
import sys
from unlearnkit.evaluation.evaluate import evaluate_run
run, file, batch = sys.argv[1:]
evaluate_run(run, suite="prompts", file=file, batch=int(batch))
"""
LEVELS = 1  # of 255, see Model.sample
HERE = Path("evaluation/prompts-rows")
EVIL = "<script>alert('cat')</script>"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that erased the cat, a CSV of ten prompts, and the script."""
    folder = tmp_path_factory.mktemp("canvas")
    rows = ["prompt,role,form,object,style"]
    for style in ("plain", "neon", "pop art"):
        rows += [f"a {style} picture of a cat,erased,name,cat,{style}"]
        rows += [f"a {style} picture of a {word},near,name,{word},{style}" for word in ("dog", "bear")]
    rows += ["a kitten,erased,synonym,cat,"]
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")
    (folder / "evaluate.py").write_text(SCRIPT)
    erase("canvas", Concept("cat"), method="uce", out=folder / "run")
    return folder


def started(asked: Path, name: str, batch: int, *, processes: int = 1) -> subprocess.Popen[bytes]:
    """An evaluation of a copy of the run, in a process or several of its own."""
    copy = asked / name
    if not copy.exists():
        shutil.copytree(asked / "run", copy, ignore=shutil.ignore_patterns("pipeline"))
    words = [sys.executable]
    if processes > 1:
        # accelerate launch starts a single process where there is no GPU
        words += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words += [str(asked / "evaluate.py"), str(copy), str(asked / "rows.csv"), str(batch)]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finished(asked: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((asked / name / HERE / "evaluation.json").read_text()))


def tables(asked: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((asked / name / HERE / "tables.json").read_text()))


def pictures(asked: Path, name: str) -> dict[str, Path]:
    folder = asked / name / HERE / "pictures"
    return {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*.png"))}


def test_batches_and_processes_find_the_same(asked: Path) -> None:
    ways = {"one": (1, 1), "seven": (7, 1), "all": (32, 1), "two": (3, 2)}
    for name, (batch, processes) in ways.items():
        assert started(asked, name, batch, processes=processes).wait(600) == 0
    assert finished(asked, "two")["processes"] == 2
    first, farthest, alike = pictures(asked, "one"), 0, 0
    for name in ("seven", "all", "two"):
        other = pictures(asked, name)
        assert other.keys() == first.keys()
        for file, path in other.items():
            x, y = (np.asarray(read(one)[0], int) for one in (path, first[file]))
            farthest = max(farthest, int(np.abs(x - y).max()))
            alike += bool((x == y).all())
    print(f"{alike} of {3 * len(first)} pictures are the same to the bit, the others within {farthest} level")
    assert farthest <= LEVELS
    one = tables(asked, "one")
    for name in ("seven", "all", "two"):
        other = tables(asked, name)
        assert other["verdict"]["sentence"] == one["verdict"]["sentence"]
        for part in ("concepts", "kept", "by concept", "unlearncanvas", "failed"):
            assert other["tables"][part] == one["tables"][part], part
        assert other["tables"]["clip"]["change"]["value"] == pytest.approx(
            one["tables"]["clip"]["change"]["value"], abs=1e-3
        )
    assert verify(asked / "two") == []
    assert redraw(asked / "two", 0.1) == (2, [])


def test_a_killed_evaluation_finds_the_same_and_draws_nothing_twice(asked: Path) -> None:
    process = started(asked, "killed", 3)
    while len(pictures(asked, "killed")) < 13:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {name: path.stat().st_mtime_ns for name, path in pictures(asked, "killed").items()}
    assert not (asked / "killed" / HERE / "evaluation.json").exists()
    assert started(asked, "killed", 3).wait(600) == 0
    after = pictures(asked, "killed")
    assert {name: after[name].stat().st_mtime_ns for name in there} == there
    assert sum(finished(asked, "killed")["drawn"].values()) == len(after) - len(there)
    assert started(asked, "whole", 3).wait(600) == 0
    for file in ("rows.jsonl", "features.safetensors", "tables.json", "plan.json", "cases.jsonl"):
        killed, whole = ((asked / name / HERE / file).read_bytes() for name in ("killed", "whole"))
        assert killed == whole, file


def typed(folder: Path, *words: str) -> tuple[int, str]:
    """The exit status of a command line in ``folder``, and all that it said."""
    line = [sys.executable, "-m", "unlearnkit", *words]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_what_is_odd_is_handled_or_said(asked: Path) -> None:
    """A script and 10,000 characters in a prompt, ``../`` in a name, wrong columns, another version, a changed row."""
    shutil.copytree(asked / "run", asked / "odd", ignore=shutil.ignore_patterns("pipeline"))
    long = "a cat " * 1667
    rows = ["prompt,role,object", f'"{EVIL}",erased,cat', f"{long[:10_000]},erased,cat", "a dog,near,dog"]
    (asked / "odd.csv").write_text("\n".join(rows))
    (asked / "wrong.csv").write_text("text,role\na cat,erased\n")
    asks = ("evaluate", "odd", "--suite", "prompts", "--file")
    assert typed(asked, *asks, "wrong.csv") == (
        2,
        "'wrong.csv' has no column 'prompt', its columns are text, role\n",
    )
    status, said = typed(asked, *asks, "odd.csv")
    assert (status, max(map(len, said.splitlines())) < 1000) == (0, True)
    assert typed(asked, "report", "odd") == (0, "odd/report.html\n")
    page = (asked / "odd" / "report.html").read_text()
    assert EVIL not in page
    assert "&lt;script&gt;alert" in page
    tables_ = json.loads((asked / "odd/evaluation/prompts-odd/tables.json").read_text())["tables"]
    # the canvas reads 24 tokens; the script has more of them, too
    assert tables_["failed"]["reasons"]["after"] == {"prompt too long": 2}
    assert tables_["concepts"][0]["direct"]["after"]["n"] == 2

    for words in (("report", "../elsewhere"), ("verify", "../../etc"), ("evaluate", "../odd/../none")):
        status, said = typed(asked, *words)
        assert (status, said.count("\n")) == (2, 1)
    status, said = typed(asked, "erase", "canvas", "--concept", "../../cat", "--dry-run")
    assert "run folder  runs/esd-cat-0 (nothing was written)" in said

    status, said = typed(asked, "verify", "odd")
    assert (status, said.splitlines()[-1]) == (0, "odd: all hashes and figures agree")
    assert said.startswith("not checked: pipeline was removed")
    folder = asked / "odd/evaluation/prompts-odd"
    kept = {name: (folder / name).read_text() for name in ("rows.jsonl", "plan.json")}
    row = next(line for line in kept["rows.jsonl"].split("\n") if '"after"' in line and "/object" in line)
    (folder / "rows.jsonl").write_text(
        kept["rows.jsonl"].replace(row, json.dumps(json.loads(row) | {"value": "bus"}))
    )
    status, said = typed(asked, "verify", "odd")
    assert status == 2
    assert "changed: evaluation/prompts-odd/rows.jsonl was changed later" in said
    (folder / "rows.jsonl").write_text(kept["rows.jsonl"])
    (folder / "plan.json").write_text(kept["plan.json"].replace('"version": 1', '"version": 9'))
    status, said = typed(asked, "verify", "odd")
    assert status == 2
    assert "changed: evaluation/prompts-odd/plan.json was changed later" in said
    status, said = typed(asked, *asks, "odd.csv")
    assert status == 2
    assert "was begun with another plan (suite differs)" in said
