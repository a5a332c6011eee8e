"""The recipe's last stage: what was trained, in half precision, laid out as the package ships it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel

from . import WEIGHTS, networks, world

__all__ = ["ship"]

ARTWORK = """\
The pictures that these models learned were painted from the glyphs of Noto Color Emoji
(https://github.com/googlefonts/noto-emoji), Copyright Google LLC, licensed under the SIL Open Font License 1.1
(https://openfontlicense.org). The font itself is not part of this package. The weights are licensed like the package.
"""


def ship(work: Path, recipe: dict[str, object], into: Path = WEIGHTS) -> None:
    """Write the pipeline, the never-knew U-Net, the evaluators, the recipe's settings and the sha256 sums into ``into``."""
    into.mkdir(parents=True, exist_ok=True)
    tokenizer = networks.make_tokenizer(work / "tokenizer")
    pipe = networks.assemble(
        AutoencoderKL.from_pretrained(work / "vae-refined"), CLIPTextModel.from_pretrained(work / "text"), tokenizer,
        UNet2DConditionModel.from_pretrained(work / "unet"),
    )  # fmt: skip
    pipe.to(torch.float16).save_pretrained(into / "pipeline")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(work / "tokenizer" / name, into / "pipeline" / "tokenizer" / name)
    if (work / "never-knew").is_dir():
        UNet2DConditionModel.from_pretrained(work / "never-knew").half().save_pretrained(into / "never-knew")
    for name in ("guide", "judge"):
        shutil.copytree(work / name, into / name, dirs_exist_ok=True)
    CLIPModel.from_pretrained(work / "clip").half().save_pretrained(into / "clip")
    tokenizer.save_pretrained(into / "clip")
    logs = {p.stem: json.loads(p.read_text().splitlines()[-1]) for p in sorted(work.glob("*-run.jsonl"))}
    facts = {"world": world.VERSION, **recipe, "last log lines": logs}
    (into / "recipe.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (into / "ARTWORK.txt").write_text(ARTWORK, encoding="utf-8")
    write_sums(into)


def sums(folder: Path) -> dict[str, str]:
    """sha256 of every file below ``folder``, by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def write_sums(folder: Path) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in sums(folder).items())
    (folder / "SHA256SUMS").write_text(text, encoding="utf-8")
