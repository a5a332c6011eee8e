"""A tiny pipeline saved as a folder with hints, and an evaluated run of it; each made once a session."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch

import tiny
from unlearnkit.canvas.classifier import CanvasClassifier
from unlearnkit.evaluation.evaluate import evaluate_run
from unlearnkit.families.opening import quiet
from unlearnkit.metrics.evaluators import Evaluators, evaluators_of
from unlearnkit.model.load import load
from unlearnkit.runs.run import erase
from unlearnkit.schema import Concept

SCRIPT = "<script>alert('x')</script>"

HINTS = """
[sampling]
steps = 2
guidance = 2.0
[vocabulary]
objects = ["cat", "dog", "bear", "car", "tree"]
styles = ["van gogh", "neon"]
[templates]
object = ["a {}", "my {}"]
style = ["{} art"]
"""


@functools.cache
def folder() -> Path:
    """The folder of a diffusers pipeline; treat it as read-only."""
    made = Path(tempfile.mkdtemp(prefix="unlearnkit-"))
    with quiet():
        tiny.pipeline(made / "tokenizer-files").save_pretrained(made / "model")
    (made / "model" / "unlearnkit.toml").write_text(HINTS)
    return made / "model"


def tools() -> Evaluators:
    """A toy Eye as the reader of objects and styles."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return evaluators_of(CanvasClassifier("plain", ["cat", "dog", "bear"], ["plain"]).eval(), "eye@0")


def evaluated(into: Path) -> Path:
    """A finished run with an evaluation of eight prompts, one of them a script and one with an odd line break."""
    lines = ["prompt,role,form,object"]
    lines += [f"a cat {i},erased,name,cat" for i in range(3)] + ["my\u2028cat,erased,template,cat"]
    lines += [f"a dog {i},near,name,dog" for i in range(3)] + [f'"{SCRIPT}",unrelated,name,bear']
    (into / "rows.csv").write_text("\n".join(lines) + "\n")
    erase(load(folder()), Concept("cat"), method="uce", out=into / "run")
    evaluate_run(into / "run", suite="prompts", file=into / "rows.csv", evaluators=lambda device: tools())
    return into / "run"
