"""Pictures painted as the canvas models learned them: a grid of them, and what the shipped evaluators see in them.

    python recipes/canvas/painted.py grid     every object in every style, as one PNG
    python recipes/canvas/painted.py check    accuracy of both classifiers and CLIP on pictures held out of training

Both need the font of Debian's package fonts-noto-color-emoji.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from command import Parser, exits
from painter import paint, paint_many, painted_grid
from pictures import Picture, draw_picture
from unknown import Unknown, draw_unknown, paint_unknown
from unlearnkit.canvas import world
from unlearnkit.canvas.check import Cell, accuracy, classify_all
from unlearnkit.canvas.evaluators import Prediction, held_out_classifier, validation_classifier
from unlearnkit.errors import InputError
from unlearnkit.io.files import new_file, writing
from unlearnkit.runs.images import save_png
from unlearnkit.seeds import derive

__all__ = ["check_evaluators", "main"]


def check_evaluators(count: int = 5000) -> dict[str, dict[str, float]]:
    """Percentages of held-out painted pictures with the right object and the right style, by evaluator.

    Also both classifiers on a fifth as many pictures with an unknown object, an unknown style or both.
    """
    rng = random.Random(derive(world.VERSION, "check"))
    pictures = [draw_picture(rng, held_out_pairs=True) for _ in range(count)]
    strange = [draw_unknown(rng, held_out=True) for _ in range(count // 5)]
    images = [Image.fromarray(array) for array in paint_many(pictures, paint)]
    found = {name: _right(pictures, seen) for name, seen in classify_all(_cells(pictures), images).items()}
    images = [Image.fromarray(array) for array in paint_many(strange, paint_unknown)]
    for name, classifier in (("judge", held_out_classifier()), ("guide", validation_classifier())):
        found[f"{name}, unknown"] = _right(strange, classifier.classify(images))
    return found


def _cells(pictures: Sequence[Picture | Unknown]) -> list[Cell]:
    return [Cell(p.object, p.style, 0) for p in pictures]


def _right(pictures: Sequence[Picture | Unknown], seen: Sequence[Prediction]) -> dict[str, float]:
    shares = accuracy(_cells(pictures), seen)
    return {kind: shares[kind] for kind in ("object", "style")}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python recipes/canvas/painted.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    grid = commands.add_parser("grid", help="paint every object in every style", allow_abbrev=False)
    add = grid.add_argument
    add(
        "--out",
        type=Path,
        default=Path("painted.png"),
        metavar="FILE",
        help="PNG file (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the pictures (default: %(default)s)")
    add("--scale", type=int, default=1, metavar="N", help="enlarge by this factor (default: %(default)s)")
    check = commands.add_parser("check", help="measure the shipped evaluators", allow_abbrev=False)
    check.add_argument(
        "--count", type=int, default=5000, metavar="N", help="painted pictures (default: %(default)s)"
    )
    return parser


def _grid(file: Path, seed: int, scale: int) -> None:
    if not 1 <= scale <= 8:
        raise InputError(f"--scale {scale}: write a whole number from 1 to 8")
    new_file(file)
    with writing(file):
        save_png(painted_grid(seed, scale=scale), file)
    print(file)


def _check(count: int) -> None:
    if count < 5:
        raise InputError(f"--count {count}: write a whole number from 5 up")
    print(json.dumps(check_evaluators(count), indent=1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits: 2 unusable input, 130 interrupted."""
    given = _parser().parse_args(arguments)
    with exits("stopped"):
        if given.command == "grid":
            _grid(given.out, given.seed, given.scale)
        else:
            _check(given.count)


if __name__ == "__main__":
    main()
