"""Do the methods still make the same edits? Record the hashes of many small edits, change the code, compare.

    python benchmarks/recorded.py record before.json
    python benchmarks/recorded.py compare before.json

Every method runs on a toy pipeline of every family (one thread, few steps), in several variants of its settings on the
first of them, and on the canvas with the settings that ship, but for three steps and few pictures. A hash depends on
the processor and on torch's release, so a file is good for one machine and environment only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
import typer

import kinds  # type: ignore[import-not-found]
import unlearnkit
from unlearnkit.errors import InputError
from unlearnkit.methods import METHODS, edit_for, plan, resolve
from unlearnkit.model.hints import Hints
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job

HINTS = Hints(
    steps=3,
    guidance=4.0,
    size=16,
    objects=("cat", "dog", "bear", "car"),
    styles=("van gogh", "neon", "photo"),
    templates={"object": ("a photo of a {}", "{} in a picture"), "style": ("art by {}",)},
)
ONE = Request((Concept("cat", phrases=("kitten",)),), keep=(Concept("dog"),))
TWO = Request((Concept("cat", instead="bear"), Concept("car")))
STYLE = Request((Concept("van gogh", "style"),))
FEW: dict[str, Any] = {
    "steps": 3,
    "lr": 1e-3,
    "batch": 2,
    "pictures": 3,
    "retain_pictures": 2,
    "memory": 2,
    "discriminator_warmup": 1,
    "mask_warmup": 1,
    "mask_every": 2,
    "start_steps": 3,
    "search_rounds": 1,
    "search_steps": 2,
    "inversion_steps": 2,
    "neighbours": 2,
    "fisher_pictures": 2,
    "fisher_times": 2,
    "sentences": 4,
    "retain_sentences": 2,
    "grammar": "plain",
}
TRAINED: tuple[dict[str, Any], ...] = (
    {"trains": "all"},
    {"trains": "lora", "rank": 2, "rule": (), "mask": "none"},
    {"rule": ("l1sp", "l2sp")},
    {"mask": "saliency"},
    {"mask": "dynamic", "steps": 5},
    {"combine": "restricted"},
    {"combine": "preserving", "adds": 0.5},
    {"combine": "pcgrad", "schedule": "onecycle"},
    {"checkpointing": True},
)
OWN: dict[str, tuple[dict[str, Any], ...]] = {
    "duge": (
        {"target": "steered", "eta": 1.8, "output_weight": 3.0, "retain_target": "teacher", "null": "rest"},
        {"distil_weight": 1.0},
        {"attention_weight": 0.0, "output_weight": 1.0},
        {"relative_erase": False, "memory": 0},
    ),
    "rgd": (
        {"cap_on": "element", "relative_erase": True},
        {"retain_target": "teacher", "prompt_dropout": 0.3},
        {"diverse": False},
    ),
    "doco": (
        {"teacher": "student"},
        {"retain_target": "teacher", "prompt_dropout": 0.2},
        {"released": True},
    ),
    "sculpting": (
        {"order": "joint", "eta": 2.0},
        {"retain_set": "all", "distil_weight": 10.0},
        {"teacher": "student"},
    ),
    "esd": ({"start": "pictures", "templates": True, "null": "rest", "retain_weight": 3.0},),
    "uce": ({"tokens": "all", "templates": True}, {"sentences": 0, "retain_sentences": 0}),
    "ca": (
        {"target": "noise"},
        {"teacher": "student", "retain_weight": 1.0},
        {"retain_weight": 4.0, "retain_target": "teacher", "prompt_dropout": 0.1},
    ),
    "salun": ({"teacher": "frozen"},),
    "ga": ({"cap_on": "picture"},),
    "erasediff": ({"balance": "cosine"}, {"balance": "fixed"}, {"target": "uniform"}),
    "selective_amnesia": ({"retain_weight": 2.0, "elastic": 5.0},),
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
File = Annotated[Path, typer.Argument(help="A JSON file of hashes by case.")]


def cases(canvas: bool) -> Iterator[tuple[str, tuple[Model, Request, str, dict[str, Any]]]]:
    """Every case: its name, the model, the request, the method and the settings."""
    words = Path(tempfile.mkdtemp())
    for title in kinds.KINDS:
        model = Model(kinds.pipeline(title, words), source="tiny", hints=HINTS)
        for method in METHODS:
            yield f"{title} | {method}", (model, TWO, method, {})
    for prediction in ("epsilon", "v_prediction"):
        model = Model(kinds.tiny.pipeline(words, prediction=prediction), source="tiny", hints=HINTS)
        for method in METHODS:
            known = {field.name for field in dataclasses.fields(METHODS[method])}
            variants = [*OWN.get(method, ()), *(TRAINED if "trains" in known else ())]
            for title, request in (("one", ONE), ("style", STYLE)):
                yield f"{prediction} | {method} | {title}", (model, request, method, {})
            for variant in variants if prediction == "epsilon" else ():
                yield f"{prediction} | {method} | {json.dumps(variant)}", (model, ONE, method, variant)
    if canvas:
        model = unlearnkit.load("canvas")
        for method in METHODS:
            for concept in (Concept("cat"), Concept("neon", "style")):
                case = (model, Request((concept,)), method, {"canvas": True})
                yield f"canvas | {method} | {concept.name}", case


def made(model: Model, request: Request, method: str, settings: dict[str, Any], cache: Path) -> list[Any]:
    """The edit's hash and what the plan says, or why there is none."""
    stock = {field.name: field.default for field in dataclasses.fields(METHODS[method])}
    known = stock.keys()
    few = {name: value for name, value in FEW.items() if name in known}
    if method == "duge":
        few["neighbours"] = 1
    if "combine" in settings and stock.get("retain_weight") == 0:
        settings = {"retain_weight": 1.0} | settings  # two sides to combine
    settings = {name: value for name, value in settings.items() if name in known or name == "canvas"}
    if model.classes is not None:
        few.pop("grammar", None)  # classes have no sentences
    try:
        if settings == {"canvas": True}:
            kept = {"lr", "batch", "grammar", "sentences", "retain_sentences"}
            kept |= {"neighbours"} if method != "duge" else set()
            shipped = dataclasses.asdict(resolve(model, request, method, {}))
            settings = shipped | {name: value for name, value in few.items() if name not in kept}
        else:
            settings = few | settings
        said = dataclasses.astuple(plan(model, request, method=method, settings=settings))
        edit = edit_for(model, request, method=method, settings=settings, job=Job(cache=cache))
        return [edit.hash(), json.loads(json.dumps(said))]
    except InputError as error:
        return ["refused", str(error)]


@app.command()
def record(
    file: File, canvas: Annotated[bool, typer.Option(help="The canvas too, in about ten minutes.")] = True
) -> None:
    """Write the hash of every case to FILE."""
    torch.set_num_threads(1)
    cache, hashes = Path(tempfile.mkdtemp()), {}
    for name, case in cases(canvas):
        hashes[name] = made(*case, cache=cache)
        print(len(hashes), name, *hashes[name], flush=True)
        file.write_text(json.dumps(hashes, indent=1) + "\n")


@app.command()
def compare(file: File) -> None:
    """Make every case of FILE again; exit 1 where a hash differs."""
    torch.set_num_threads(1)
    before, cache, off, count = json.loads(file.read_text()), Path(tempfile.mkdtemp()), 0, 0
    for name, case in cases(any(name.startswith("canvas") for name in before)):
        if name in before:
            now, count = made(*case, cache=cache), count + 1
            if now[0] != before[name][0]:
                off += 1
                print(f"{name}: was {before[name]}, is {now}", flush=True)
            elif now[0] != "refused" and now[1] != before[name][1]:
                print(f"{name}: the plan was {before[name][1]}, is {now[1]}", flush=True)
    print(f"{count} edits made again, {off} differ")
    raise typer.Exit(int(off > 0))


if __name__ == "__main__":
    app()
