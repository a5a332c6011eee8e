"""What appears where a concept was, for each choice of ``instead``, as the validation classifier sees 16 pictures.

    python benchmarks/instead.py [--concept cat] [--method uce] [--word dog] [--out pictures.png]

Prints, for the untouched model, the method's own choice, ``nothing``, ``nearest`` and a word: pictures that show the
concept, pictures in which nothing is recognised, and pictures of a style prompt that have the style.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import torch
from PIL import Image

from unlearnkit import Concept, load
from unlearnkit.canvas.validation import validation_classifier
from unlearnkit.methods import edit_for
from unlearnkit.schema import Request

PLAIN, COMMA = 4, 4  # pictures without a style, and with one after a comma


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--concept", default="cat", help="an object")
    parser.add_argument("--method", default="uce")
    parser.add_argument("--word", default="dog")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, name = load("canvas"), given.concept
    styles = list(model.hints.styles)[:8]
    prompts = [f"a picture of a {name}"] * PLAIN + [f"a {name} in {style} style" for style in styles]
    prompts += [f"a {name}, {style}" for style in styles[:COMMA]]
    wanted, rows = [""] * PLAIN + styles + styles[:COMMA], list[list[Image.Image]]()
    for choice in ("untouched", None, "nothing", "nearest", given.word):
        if choice == "untouched":
            edit = None
        else:
            edit = edit_for(model, Request((Concept(name, instead=choice),)), method=given.method)
        with model.wearing(edit) if edit else nullcontext():
            rows.append(model.sample(prompts, range(len(prompts))))
        seen = validation_classifier().classify(rows[-1])
        left = sum(one.object == name for one in seen)
        blank = sum(one.object in ("", "nothing") for one in seen)
        right = sum(one.style == style for one, style in zip(seen, wanted, strict=True) if style)
        chosen = edit.facts.get("instead", {}) if edit else {}
        print(
            f"{choice or 'own choice'} {chosen or ''}: {name} {left}, nothing {blank} of {len(seen)}; style right "
            f"{right} of {len(styles) + COMMA}",
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
