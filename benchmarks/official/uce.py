"""UCE (rohitgandikota/unified-concept-editing): their whole script for Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor

from . import script
from .work import Peer, Work, difference, erased, opened, request

KEEP = ("dog", "car", "house")
SETTINGS = {"erase_weight": 1.0, "retain_weight": 1.0, "ridge": 0.5, "tokens": "last", "templates": False}


def theirs(work: Work) -> Mapping[str, Tensor]:
    arguments = ["--edit_concepts", "cat", "--guide_concepts", "bear", "--preserve_concepts", "; ".join(KEEP)]
    arguments += ["--concept_type", "object", "--model_id", str(work.pipeline), "--device", "cpu"]
    arguments += ["--save_dir", str(work.out), "--exp_name", "edit"]
    with torch.enable_grad(), script.inside(work.checkout):  # theirs turns it off for the process
        script.run(work.checkout / "trainscripts" / "uce_sd_erase.py", arguments)
    weights = load_file(work.out / "edit.safetensors")
    return {f"unet.{name}": weight for name, weight in weights.items()}


def ours(work: Work) -> Mapping[str, Tensor]:
    return erased(work, "uce", SETTINGS, request("bear", *KEEP))


def agrees(work: Work) -> tuple[str, float]:
    base = opened(work).weights("xattn-kv")
    both = (side(work) for side in (theirs, ours))
    changes = [{name: weight - base[name].detach() for name, weight in one.items()} for one in both]
    return "change", difference(*changes)


PEER = Peer(
    "uce",
    "rohitgandikota/unified-concept-editing",
    "the whole script trainscripts/uce_sd_erase.py, as it is",
    "one concept, three retained ones, the same weights",
    theirs,
    ours,
    agrees,
)
