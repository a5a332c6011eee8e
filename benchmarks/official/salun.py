"""SalUn (OPTML-Group/Unlearn-Saliency): their functions for the mask and for training on Stable Diffusion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unlearnkit.data.image_sets import DenoiserInput
from unlearnkit.methods.salun import SalUn, Sets
from unlearnkit.parts.mask import Mask
from unlearnkit.training.net import Net, Step

from . import script
from .compvis import LatentDiffusion
from .pictures import Fed, shown
from .work import Peer, Work, difference, erased, gradient, opened, request, watched

PICTURES, BATCH, ALPHA, MASKING = 4, 4, 0.1, 2
SETTINGS = {"batch": BATCH, "retain_weight": ALPHA, "pictures": PICTURES, "retain_pictures": PICTURES}
ABSENT = ("matplotlib", "matplotlib.pyplot", "convertModels", "dataset")
CLASS = 0  # theirs erases a class of Imagenette, whose place a prompt takes here; the next class is its pseudo label


def masked(work: Work, model: LatentDiffusion, batches: int) -> str:
    """Their mask of the half of all weights, as a file."""
    how: dict[str, Any] = {"classes": CLASS, "c_guidance": 7.5, "batch_size": BATCH, "epochs": 1, "lr": 1e-5}
    _called(work, "generate_mask", model, batches, how)
    return str(work.out / "mask" / str(CLASS) / "with_0.5.pt")


def trained(work: Work, model: LatentDiffusion, mask: str | None, batches: int) -> None:
    """Their training, with their mask or without one."""
    how: dict[str, Any] = {
        "class_to_forget": CLASS,
        "train_method": "full",
        "alpha": ALPHA,
        "batch_size": BATCH,
    }
    _called(work, "random_label", model, batches, how | {"epochs": 1, "lr": 1e-5, "mask_path": mask})


def _called(work: Work, name: str, model: LatentDiffusion, batches: int, how: dict[str, Any]) -> None:
    found = shown(work, PICTURES)
    prompts = [found["concept"][0], found["anchor"][0]]
    forget, keep = (([(found["pixels"], [at] * BATCH)] * batches, prompts) for at in (CLASS, CLASS + 1))
    path = work.checkout / "SD" / "train-scripts" / f"{name}.py"
    with script.quiet(), script.inside(work.checkout / "SD", *ABSENT):
        os.chdir(work.out)  # where it writes
        space = script.run(path, main=False)
        space |= {"setup_model": lambda *_: model, "sleep": lambda *_: None, "save_history": lambda *_: None}
        space |= {"setup_forget_data": lambda *_: forget, "setup_remain_data": lambda *_: keep}
        space["save_model"] = lambda *_, **__: torch.save(model.model.diffusion_model.state_dict(), "unet.pt")
        how |= dict.fromkeys(("config_path", "ckpt_path", "diffusers_config_path"))
        function = {"generate_mask": "generate_mask", "random_label": "certain_label"}[name]
        space[function](**how, device="cpu")


def theirs(work: Work) -> Mapping[str, Tensor]:
    mask = masked(
        work, LatentDiffusion(work.pipeline), MASKING
    )  # a process of its own, which opens the model too
    trained(work, LatentDiffusion(work.pipeline), mask, work.steps)
    return {f"unet.{name}": weight for name, weight in torch.load(work.out / "unet.pt").items()}


def ours(work: Work) -> Mapping[str, Tensor]:
    settings = SETTINGS | {"steps": work.steps, "mask_warmup": MASKING}
    return erased(work, "salun", settings, request("bear", "bear"))


def agrees(work: Work) -> tuple[str, float]:
    """Of a training step, and of the mask from one batch: the larger of both.

    Theirs encodes the concept's picture twice, for the prediction and for its target, and each time draws from the
    VAE's distribution: prediction and target see slightly different pictures. Here both take its mean.
    """
    shown(work, PICTURES)
    theirs_ = LatentDiffusion(work.pipeline, drawn=False)
    with watched(passes=True) as seen:
        trained(work, theirs_, None, 1)
    (x_r, t_r, keep, _), (x, t, concept, _), (_, _, other, _) = seen.passes
    model, method = opened(work), SalUn(**SETTINGS)  # type: ignore[arg-type]
    net = Net(model)
    erase: Any = Fed(DenoiserInput(x, t, concept), x)
    retain: Any = Fed(DenoiserInput(x_r, t_r, keep), theirs_.noise)
    sets = Sets(erase, retain, [[other[:1]]], other[:1])
    far = difference(seen.gradients, gradient(net, "all", lambda: method.loss(net, sets, Step(0, 0))))
    theirs_ = LatentDiffusion(work.pipeline, drawn=False)
    file = torch.load(masked(work, theirs_, 1))
    mask = Mask(share=0.5, warmup=1, steps=1, per_matrix=False)
    grads = {n: w.grad for n, w in theirs_.model.diffusion_model.named_parameters()}
    mask.accumulate(0, {n: torch.zeros(file[n].shape) if g is None else g for n, g in grads.items()})
    mask.choose(0)
    other_ = sum(int((mask.opened[n] != file[n].bool()).sum()) for n in file)
    return "gradient, mask", max(far, other_ / sum(map(torch.numel, file.values())))


PEER = Peer(
    "salun",
    "OPTML-Group/Unlearn-Saliency",
    "their functions generate_mask and certain_label of SD/train-scripts; our pipeline answers their calls "
    "to a CompVis model, and gives our pictures, and two prompts as their classes",
    f"all weights, {MASKING} batches for the mask, then four pictures a side and step, of the same size",
    theirs,
    ours,
    agrees,
)
