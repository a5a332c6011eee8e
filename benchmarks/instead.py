"""What appears where a concept was, for each choice of ``instead``, as the validation classifier sees 24 pictures.

    python benchmarks/instead.py [--concept cat] [--method uce] [--choice dog ...] [--out pictures.png]

Prints for each choice: pictures that show the concept, pictures in which nothing is recognised, the object that is
recognised most, and pictures of a style prompt that have the style.
"""

from __future__ import annotations

import argparse
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import torch
from PIL import Image

from unlearnkit import Concept, load
from unlearnkit.canvas.validation import validation_classifier
from unlearnkit.methods import edit_for
from unlearnkit.schema import Request

PLAIN, STYLED = 8, 8  # pictures without a style, and in two wordings with one
UNTOUCHED, OWN = "untouched", "own"  # the model before the edit, and what the canvas ships for the method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--concept", default="cat", help="an object")
    parser.add_argument("--method", default="uce")
    parser.add_argument(
        "--choice",
        action="append",
        help=f"{UNTOUCHED}, {OWN}, nothing, nearest or a word; default: the first four",
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, name = load("canvas"), given.concept
    styles = list(model.hints.styles)[:STYLED]
    prompts = [f"a picture of a {name}"] * PLAIN + [f"a {name} in {style} style" for style in styles]
    prompts += [f"a {name}, {style}" for style in styles]
    wanted, rows = [""] * PLAIN + styles + styles, list[list[Image.Image]]()
    for choice in given.choice or (UNTOUCHED, OWN, "nothing", "nearest"):
        if choice == UNTOUCHED:
            edit = None
        else:
            word = None if choice == OWN else choice
            edit = edit_for(model, Request((Concept(name, instead=word),)), method=given.method)
        with model.wearing(edit) if edit else nullcontext():
            rows.append(model.sample(prompts, range(len(prompts))))
        seen = validation_classifier().classify(rows[-1])
        left = sum(one.object == name for one in seen)
        blank = sum(one.object in ("", "nothing") for one in seen)
        right = sum(one.style == style for one, style in zip(seen, wanted, strict=True) if style)
        chosen = edit.facts.get("instead", {}) if edit else {}
        object_, most = Counter(one.object for one in seen).most_common(1)[0]
        print(
            f"{choice} {chosen or ''}: {name} {left}, nothing {blank}, most {object_} {most} of {len(seen)}; "
            f"style right {right} of {len(wanted) - PLAIN}",
            flush=True,
        )
    if given.out:
        size = rows[0][0].width
        sheet = Image.new("RGB", (size * len(prompts), size * len(rows)))
        for row, images in enumerate(rows):
            for column, image in enumerate(images):
                sheet.paste(image, (size * column, size * row))
        sheet.save(given.out)


if __name__ == "__main__":
    main()
