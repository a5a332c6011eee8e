"""The command attack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..io.files import user_path
from ..io.tick import span
from . import complete
from .checks import known_run
from .output import answer
from .terminal import HOW, WHAT, WHERE, Device, Dtype, Seed, err, out, showing

__all__ = ["attack"]


def attack(
    run: Annotated[
        str | None,
        typer.Argument(
            help="The folder of a finished run or chain; with --base, a model.", autocompletion=complete.runs
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAME",
            autocompletion=complete.named("attack"),
            help="An attack; may be repeated (default: all that fit the model).",
            rich_help_panel=HOW,
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="quick or full.", autocompletion=complete.named("budget"), rich_help_panel=HOW)
    ] = "quick",
    seed: Seed = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it will cost.", rich_help_panel=HOW)
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="The untouched model that RUN was made from.", rich_help_panel=WHAT
        ),
    ] = None,
    concepts: Annotated[
        list[str] | None,
        typer.Option("--concept", metavar="NAME", help="With --base: what was erased.", rich_help_panel=WHAT),
    ] = None,
    kind: Annotated[str, typer.Option(help="With --base: object or style.", rich_help_panel=WHAT)] = "object",
    objects: Annotated[
        str | None,
        typer.Option(help="A classifier of objects, as for evaluate.", rich_help_panel=HOW),
    ] = None,
    styles: Annotated[str | None, typer.Option(help="A classifier of styles.", rich_help_panel=HOW)] = None,
    nudenet: Annotated[
        str | None, typer.Option(help="NudeNet's .onnx file, to detect nudity.", rich_help_panel=HOW)
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The lowest score of NudeNet that counts.", rich_help_panel=HOW)
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Attack models with known verdicts instead.", rich_help_panel=HOW),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="With --base or --self-test: where to write.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Attack what was erased, each attack beside a control. A stopped command continues.

    [bold]unlearnkit attack runs/esd-cat-0 --attack inversion[/bold]
    """
    from ..known import check_name

    for name in names or ():
        check_name("attack", name)
    check_name("budget", budget)
    if self_test:
        if run is not None:
            raise InputError("--self-test takes no run: leave the folder out, or leave out --self-test")
        _self_test(folder or Path("attack-self-test"), budget, names)
        return
    if run is None:
        raise InputError("the run is missing: name its folder, for example unlearnkit attack runs/esd-cat-0")
    is_chain = (user_path(run) / "ledger.jsonl").exists()
    if base is None and not is_chain:
        known_run(run)

    from ..evaluation.attacked import run as of_run
    from ..schema import Concept

    def open_evaluators(device: Any) -> Any:
        from ..metrics.evaluators import local_evaluators

        read: dict[str, Any] = {"nudenet": nudenet, "threshold": threshold}
        return local_evaluators(objects=objects, styles=styles, **read, device=device)

    options: dict[str, Any] = {"attacks": names, "budget": budget, "device": device}
    attack_, plan = of_run.attack, of_run.plan
    tools = open_evaluators if objects or styles or nudenet else None
    if is_chain:
        from ..chain.commands import attack as of_chain

        attack_, plan = of_chain.attack, of_chain.plan  # type: ignore[assignment]
        if base or concepts or folder or tools or dtype:
            raise InputError("a chain has its own model, concepts and classifiers: leave these options out")
    else:
        options |= {
            "base": base,
            "concepts": tuple(Concept(name, kind) for name in concepts or ()),  # type: ignore[arg-type]
            "out": folder,
            "dtype": dtype,
        }
    if dry_run:
        _print_plan(plan(run, **options))
        return
    options |= {"evaluators": tools} if tools else {}
    try:
        with showing(f"attacking {run}") as tick:
            figures = attack_(run, seed=seed, tick=tick, **options)
    except KeyboardInterrupt:
        err.print("stopped; the same command continues", markup=False)
        sys.exit(130)
    answer({"run": run, "attacks": figures})
    for name, one in figures.items():
        _print_figures(name, one)
    if "base" in options and base is None:
        out.print(f"  for a report with pictures: unlearnkit report {run}", markup=False)


def _self_test(folder: Path, budget: str, only: list[str] | None) -> None:
    from ..evaluation.attacked.selftest import falls, self_test_attacks

    fell: dict[str, dict[str, bool]] = {}
    with showing("attacking models that still know the concept") as tick:
        found = list(self_test_attacks(folder, budget=budget, only=only, tick=tick))
    for name, model, figures in found:
        fell.setdefault(model, {})[name] = falls(figures)
        says = "right  {} falls to {}" if fell[model][name] else "WRONG  {} withstands {}"
        out.print(says.format(model, name), markup=False)
        _print_figures(f"       {name}", figures)
    wrong = sum(not one for by_name in fell.values() for one in by_name.values())
    answer({"fell": fell, "wrong": wrong})
    sys.exit(2 if wrong else 0)


def _print_plan(planned: Any) -> None:
    """One line for each attack, and the sum."""
    answer({"attacks": list(planned), "seconds": sum(one.seconds for one in planned)})
    for one in planned:
        if one.why:
            out.print(f"{one.name:<16} not for this model: {one.why}", markup=False)
            continue
        work = f"{one.pictures:>5} pictures"
        work += f", {one.gradient:,} rows with gradient" if one.gradient else ""
        out.print(f"{one.name:<16} {span(one.seconds):>9}  {work}", markup=False)
    out.print(f"{'together':<16} {span(sum(one.seconds for one in planned)):>9}", markup=False)


def _print_figures(name: str, figures: Any) -> None:
    """The rate of each arm beside its control's, and the figures of an attack without pictures."""
    for arm, one in figures["arms"].items():
        text = f"{one['after']['k']} of {one['after']['n']}"
        if control := one["control"]:
            text += f", control {control['k']} of {control['n']}"
            low, high = (one["difference"][end] * 100 for end in ("low", "high"))
            text += f", difference {one['difference']['value'] * 100:+.0f} points ({low:+.0f} to {high:+.0f})"
        note = "" if one["counted"] else "; not counted"
        out.print(f"{name}, {arm}: {text}{note}", markup=False)
    for side, numbers in figures["figures"].items():
        for title, one in numbers.items():
            if isinstance(one, dict) and isinstance(value := one.get("value"), float):
                out.print(f"{name}, {side}, {title}: {value:.4g}", markup=False)
