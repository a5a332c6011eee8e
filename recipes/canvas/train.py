"""The canvas's training recipe: paint the world, train every network on it, and lay out what the package ships.

A stage that was stopped goes on where it was; the data and every batch are functions of the seed alone.
Two stages may run side by side with one thread each: vae and text, then unet and the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autoencoder import refine_decoder, train_vae
from command import Parser, exits
from dits import train_classes, train_flow
from eyes import train_guide, train_judge
from ship import ship_all
from studio import PAINTED, Studio, paint_data
from towers import train_clip, train_text
from unets import encode_latents, train_never_knew, train_unet
from unlearnkit.canvas import WEIGHTS
from unlearnkit.errors import InputError, nearest

__all__ = ["STAGES", "STEPS", "main"]

FEWEST = 30  # pictures a part: a third of them, and those without the missing words, must not be empty


@dataclass(frozen=True)
class Stage:
    """One entry of the recipe; ``steps`` is None for a stage that does not train."""

    run: Callable[[Studio], None]
    steps: int | None
    about: str


STAGES = {
    "data": Stage(paint_data, None, "paint the pictures (needs fonts-noto-color-emoji)"),
    "vae": Stage(train_vae, 1100, "the autoencoder"),
    "text": Stage(train_text, 800, "the text tower and its tokenizer"),
    "latents": Stage(encode_latents, None, "encode the training pictures"),
    "unet": Stage(train_unet, 3600, "the canvas model's U-Net"),
    "never-knew": Stage(train_never_knew, 3600, "the U-Net that missed some objects and styles"),
    "decoder": Stage(refine_decoder, 800, "the autoencoder's decoder, further"),
    "guide": Stage(train_guide, 1500, "the evaluator that methods may use"),
    "judge": Stage(train_judge, 1500, "the evaluator that only evaluation may use"),
    "clip": Stage(train_clip, 4000, "the evaluators' CLIP"),
    "flow": Stage(train_flow, 12000, "canvas-flow, a transformer with rectified flow"),
    "classes": Stage(train_classes, 6000, "canvas-classes, a transformer that is told an object"),
    "ship": Stage(ship_all, None, "copy everything, in half precision, to where the package looks for it"),
}
STEPS = {name: stage.steps for name, stage in STAGES.items() if stage.steps is not None}


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<12}{stage.steps or '':>6}  {stage.about}" for name, stage in STAGES.items()]
    parser = Parser(
        prog="python recipes/canvas/train.py",
        usage="%(prog)s STAGE [STAGE ...] [options]",
        description="\n".join([str(__doc__), "stages, in order, with their training steps:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("stages", nargs="+", metavar="STAGE", help="a stage of the list above, or all")
    cache = Path.home() / ".cache/unlearnkit/canvas"
    add(
        "--work",
        type=Path,
        default=cache,
        metavar="FOLDER",
        help="folder for data and checkpoints (default: %(default)s)",
    )
    add(
        "--into",
        type=Path,
        default=WEIGHTS,
        metavar="FOLDER",
        help="folder for ship to fill (default: the package's own)",
    )
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--threads", type=int, default=0, metavar="N", help="torch threads; 0 leaves torch's choice")
    add(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="of the data and of every stage (default: %(default)s)",
    )
    add("--steps", action="append", default=[], metavar="STAGE=N", help="train a stage for N steps")
    parts = ", ".join(f"{part}={count}" for part, count in PAINTED.items())
    add(
        "--painted",
        action="append",
        default=[],
        metavar="PART=N",
        help=f"paint N pictures (default: {parts})",
    )
    return parser


def _counts(option: str, pairs: Sequence[str], names: Collection[str], *, low: int) -> dict[str, int]:
    """``["vae=20"]`` as ``{"vae": 20}``. Raises InputError for an unknown name and for no whole number >= low."""
    found = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name not in names:
            raise InputError(
                f"{option} {pair!r}: {name!r} is none of {', '.join(names)}{nearest(name, names)}"
            )
        if not (number.isascii() and number.isdigit() and int(number) >= low):
            raise InputError(f"{option} {pair!r}: write a whole number from {low} up, like {name}={low}")
        found[name] = int(number)
    return found


def _run(given: argparse.Namespace) -> None:
    for name in given.stages:
        if name not in (*STAGES, "all"):
            known = ", ".join([*STAGES, "all"])
            raise InputError(f"stage {name!r} is unknown{nearest(name, STAGES)}: choose from {known}")
    if given.threads < 0:
        raise InputError(f"--threads {given.threads}: write 0, for torch's own choice, or more")
    studio = Studio(
        given.work.expanduser(),
        steps=STEPS | _counts("--steps", given.steps, STEPS, low=1),
        painted=PAINTED | _counts("--painted", given.painted, PAINTED, low=FEWEST),
        device=given.device,
        seed=given.seed,
        into=given.into.expanduser(),
    )
    if given.threads:
        torch.set_num_threads(given.threads)
    for name in STAGES if "all" in given.stages else given.stages:
        STAGES[name].run(studio)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages that the command line names. Exits: 2 unusable input, 130 interrupted."""
    given = _parser().parse_args(arguments)
    with exits("stopped; the same command goes on from the last checkpoint"):
        _run(given)


if __name__ == "__main__":
    main()
