"""The commands evaluate, report, compare and verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, printable, quoted
from . import complete
from .checks import known_folder, known_run
from .output import answer
from .terminal import Device, Dtype, err, out, showing
from .terminal import quoted as shown

__all__ = ["commands", "share_of"]

commands = typer.Typer()

Run = Annotated[Path, typer.Argument(help="The folder of a run.", autocompletion=complete.runs)]


@commands.command()
def evaluate(
    run: Annotated[
        Path | None, typer.Argument(help="The folder of a finished run.", autocompletion=complete.runs)
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.named("suite"),
            help="canvas (default, for the canvas), prompts, i2p, unlearncanvas, duge or vocabulary.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="The CSV of prompts, for prompts and i2p; for vocabulary an unlearnkit.toml."),
    ] = None,
    replicates: Annotated[int, typer.Option(min=1, max=1000, help="Pictures per prompt.")] = 1,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Only as many prompts as a claim needs; without the never-knew model."),
    ] = False,
    limit: Annotated[
        float, typer.Option(help="The largest share of pictures that may still show the concept.")
    ] = 0.10,
    margin: Annotated[float, typer.Option(help="The largest loss of accuracy on other concepts.")] = 0.05,
    objects: Annotated[
        str | None,
        typer.Option(
            help="A classifier of objects: a folder or hub id that transformers opens, or a ViT's .safetensors."
        ),
    ] = None,
    styles: Annotated[str | None, typer.Option(help="A classifier of styles, in the same forms.")] = None,
    clip: Annotated[str | None, typer.Option(help="A CLIP, in the same forms.")] = None,
    features: Annotated[
        str | None,
        typer.Option(help="An image model for KID and FID, in the same forms (default: the CLIP)."),
    ] = None,
    nudenet: Annotated[str | None, typer.Option(help="NudeNet's .onnx file, to detect nudity.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Which of NudeNet's labels count: strict (default) or broad.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="The lowest score of NudeNet that counts.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Pictures per batch (default: by their size).")
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Evaluate models with known verdicts instead.")
    ] = False,
    folder: Annotated[Path, typer.Option("--out", help="The folder for --self-test.")] = Path("self-test"),
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Evaluate a run: is the concept erased, what else was lost, how certain is it. A stopped command continues.

    [bold]unlearnkit evaluate runs/esd-cat-0[/bold]
    """
    if self_test:
        if run is not None:
            raise InputError("--self-test takes no run: leave the folder out, or leave out --self-test")
        _self_test(folder, batch)
        return
    if run is None:
        raise InputError(
            "the run is missing: name its folder, for example unlearnkit evaluate runs/esd-cat-0"
        )
    if nudenet is None and (labels is not None or threshold is not None):
        raise InputError(
            "--labels and --threshold belong to --nudenet: name its .onnx file, or leave them out"
        )
    from ..known import check_name, settings_of
    from ..settings import build

    if suite is not None:
        check_name("suite", suite)
    build(settings_of("rules"), {"limit": limit, "margin": margin})
    known_run(run)

    from ..evaluation.evaluate import evaluate_run
    from ..evaluation.folders import folder_of
    from ..evaluation.plan import Rules

    rules = Rules(limit=limit, margin=margin)

    def open_evaluators(device: Any) -> Any:
        from ..metrics.evaluators import local_evaluators
        from ..suites import find

        named: dict[str, Any] = {"objects": objects, "styles": styles, "clip": clip, "features": features}
        read: dict[str, Any] = {"nudenet": nudenet, "labels": labels or "strict", "threshold": threshold}
        return local_evaluators(**named, **read, words=find(suite or "canvas").words, device=device)

    tools = open_evaluators if objects or styles or clip or features or nudenet else None
    asks: dict[str, Any] = {"suite": suite, "file": file, "replicates": replicates, "quick": quick}
    options: dict[str, Any] = {"evaluators": tools, "batch": batch, "device": device, "dtype": dtype}
    try:
        with showing(f"evaluating {run} into {folder_of(run, suite or 'canvas', file)}") as tick:
            verdict = evaluate_run(run, **asks, **options, rules=rules, tick=tick)
    except KeyboardInterrupt:
        err.print("stopped; the same command continues", markup=False)
        sys.exit(130)
    answer({"run": run, "folder": folder_of(run, suite or "canvas", file), "verdict": verdict or None})
    if verdict:
        out.print(verdict["sentence"], markup=False)
        out.print(f"  for a report with pictures: unlearnkit report {shown(run)}", markup=False)


@commands.command()
def report(run: Run) -> None:
    """Write report.html, one file with pictures, and report.json into the run's folder."""
    known_folder(run)

    from ..evaluation.report import report

    page = report(run)
    answer({"page": page, "figures": page.with_suffix(".json")})
    out.print(str(page), markup=False)


@commands.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="The folders of two or more evaluated runs.")],
    suite: Annotated[str | None, typer.Option(help="The suite, if the runs share several.")] = None,
    folder: Annotated[Path, typer.Option("--out", help="The folder for the page.")] = Path("comparison"),
) -> None:
    """Compare evaluated runs on one page, with paired tests of every two."""
    for run in runs:
        known_run(run)

    from ..evaluation.compare import compare

    page = compare(runs, folder, suite=suite)
    answer({"page": page, "figures": page.with_suffix(".json")})
    out.print(str(page), markup=False)


@commands.command()
def verify(
    run: Run,
    share: Annotated[
        str | None, typer.Option("--redraw", help="Draw this share of the pictures again, for example 1%.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Selects the pictures that are drawn again.")] = 0,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Compute all hashes and figures of a run again; exit code 2 if anything differs."""
    again = None if share is None else share_of(share)
    known_folder(run)

    from ..evaluation.verify import check, redraw

    wrong, remarks = check(run)
    count = different = 0
    if again is not None:
        with showing() as tick:
            count, differences = redraw(run, again, seed=seed, device=device, dtype=dtype, tick=tick)
        wrong += differences
        different = sum("comes out differently" in line for line in differences)
        out.print(f"{count} pictures drawn again, {different} came out differently", markup=False)
    facts: dict[str, Any] = {"changed": wrong, "not_checked": remarks}
    answer({"run": run, **facts, "redrawn": {"pictures": count, "different": different}})
    for line in wrong:
        out.print(printable(f"changed: {line}"), markup=False)
    for line in remarks:
        out.print(printable(f"not checked: {line}"), markup=False)
    if wrong:
        sys.exit(2)
    out.print(f"{run}: all hashes and figures agree", markup=False)


def _self_test(folder: Path, batch: int | None) -> None:
    from ..evaluation.selftest import EXPECTED, self_test

    with showing("evaluating models with known verdicts") as tick:
        verdicts = self_test(folder, batch=batch, tick=tick)
    wrong = [name for name, expected in EXPECTED.items() if verdicts[name]["grade"] != expected]
    answer({"verdicts": verdicts, "expected": EXPECTED, "wrong": wrong})
    for name in EXPECTED:
        out.print(
            f"{'WRONG' if name in wrong else 'right'}  {name}: {verdicts[name]['sentence']}", markup=False
        )
    sys.exit(2 if wrong else 0)


def share_of(text: str) -> float:
    """``"1%"`` or ``"0.01"`` as a number in (0, 1]. Raises InputError for anything else."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise InputError(f"the share {quoted(text)} is no number: write 1% or 0.01") from None
    if not 0 < share <= 1:  # also refuses NaN
        raise InputError(f"the share {quoted(text)} is out of range: use more than 0% and at most 100%")
    return share
