"""The recipe's last stage: what was trained, in half precision, laid out as the package ships it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import networks
import relatives
from studio import Studio
from unlearnkit.canvas import WEIGHTS, world
from unlearnkit.families import find
from unlearnkit.families.borrowing import BORROWED

__all__ = ["ship_all", "ship_relatives", "sums", "write_sums"]

LENT = ("vae", "text_encoder", "tokenizer")  # parts of the pipeline that its relatives have as well
HINTS = "unlearnkit.toml"  # written by hand: how the pipeline likes to be used
ARTWORK = """\
The pictures that these models learned were painted from the glyphs of Noto Color Emoji
(https://github.com/googlefonts/noto-emoji), Copyright Google LLC, licensed under the SIL Open Font License 1.1
(https://openfontlicense.org). The font itself is not part of this package. The weights are licensed like the package.
"""


def ship_all(studio: Studio) -> None:
    """Fill ``studio.into``: the pipeline, the never-knew U-Net, the relatives, the evaluators, recipe and sha256 sums.

    The never-knew U-Net and the relatives may be absent. Raises InputError if anything else has not been trained.
    """
    for name, stage in (
        ("vae-refined", "decoder"),
        *((n, n) for n in ("text", "unet", "guide", "judge", "clip")),
    ):
        studio.made(name, by=stage)
    work, into = studio.folder, studio.into
    into.mkdir(parents=True, exist_ok=True)
    tokenizer = studio.tokenizer()
    _ship_pipeline(work, into / "pipeline", tokenizer)
    if (work / "never-knew").is_dir():
        UNet2DConditionModel.from_pretrained(work / "never-knew").half().save_pretrained(into / "never-knew")
    ship_relatives(studio)
    for name in ("guide", "judge"):
        shutil.copytree(work / name, into / name, dirs_exist_ok=True)
    CLIPModel.from_pretrained(work / "clip").half().save_pretrained(into / "clip")
    tokenizer.save_pretrained(into / "clip")
    (into / "recipe.json").write_text(json.dumps(_recipe(studio), indent=1) + "\n", encoding="utf-8")
    (into / "ARTWORK.txt").write_text(ARTWORK, encoding="utf-8")
    for path in into.rglob("config.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.pop("_name_or_path", None):  # where it was trained is nobody's business
            path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    write_sums(into)


def _ship_pipeline(work: Path, into: Path, tokenizer: CLIPTokenizer) -> None:
    pipe = networks.assemble(
        AutoencoderKL.from_pretrained(work / "vae-refined"),
        CLIPTextModel.from_pretrained(work / "text"),
        tokenizer,
        UNet2DConditionModel.from_pretrained(work / "unet"),
    )
    pipe.to(torch.float16).save_pretrained(into)
    told = into / "text_encoder" / "config.json"  # else the text encoder alone would open in half precision
    told.write_text(told.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(work / "tokenizer" / name, into / "tokenizer" / name)
    if not (into / HINTS).exists():
        shutil.copy(WEIGHTS / "pipeline" / HINTS, into / HINTS)


def ship_relatives(studio: Studio) -> None:
    """Fill ``flow`` and ``classes`` in ``studio.into``, as far as they were trained, beside the pipeline that lends.

    In half precision; autoencoder, text tower and tokenizer are the pipeline's (``families/borrowing.py``).
    """
    for name, assemble in (("flow", _flow), ("classes", _classes)):
        if not (studio.folder / name).is_dir():
            continue
        folder, pipe = studio.into / name, assemble(studio).to(torch.float16)
        pipe.save_pretrained(folder)
        find(pipe).saved(pipe, folder)
        lent = {part: lender for part in pipe.components for lender in LENT if part.startswith(lender)}
        lent = {part: lender for part, lender in lent.items() if (folder / part).is_dir()}
        for part in lent:
            shutil.rmtree(folder / part)
        places = {part: f"../pipeline/{lender}" for part, lender in lent.items()}
        (folder / BORROWED).write_text(json.dumps(places, indent=2) + "\n", encoding="utf-8")
        if not (folder / HINTS).exists() and (WEIGHTS / name / HINTS).exists():
            shutil.copy(WEIGHTS / name / HINTS, folder / HINTS)


def _flow(studio: Studio) -> Any:
    network = SD3Transformer2DModel.from_pretrained(studio.folder / "flow")
    text = studio.text(CLIPTextModelWithProjection)
    return relatives.assemble_flow(studio.vae(), text, studio.tokenizer(), network)


def _classes(studio: Studio) -> Any:
    network = DiTTransformer2DModel.from_pretrained(studio.folder / "classes")
    return relatives.assemble_classes(studio.vae(), network)


def _recipe(studio: Studio) -> dict[str, object]:
    """What was trained and how, with the last line of every log."""
    logs = {
        p.stem: json.loads(p.read_text().splitlines()[-1]) for p in sorted(studio.folder.glob("*-run.jsonl"))
    }
    return {
        "world": world.VERSION,
        "seed": studio.seed,
        "steps": studio.steps,
        "painted": studio.painted,
        "last log lines": logs,
    }


def sums(folder: Path) -> dict[str, str]:
    """sha256 of every file below ``folder``, by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` as ``sha256sum -c`` reads it."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sums(folder).items())
    (folder / "SHA256SUMS").write_text(text, encoding="utf-8")
