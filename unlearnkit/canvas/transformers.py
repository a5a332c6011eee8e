"""The recipe's stages ``flow`` and ``classes``: a flow transformer that reads, and one that is told a class.

Both see the pictures and the latents of the canvas model's U-Net, and share its autoencoder and text tower.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModelWithProjection

from ..errors import InputError
from ..seeds import derive, stream
from . import networks, relatives, world
from .loop import LossOf, train_averaged
from .studio import CAPTIONS, Studio, numbered, sown
from .unets import min_snr, noised

__all__ = ["train_classes", "train_flow"]

BATCH = 32


def train_flow(studio: Studio) -> None:
    """Rectified flow on noise shares from a logit-normal (Esser et al. 2024), a tenth of the captions dropped."""
    captions, which = numbered(studio.captions("train", held=False))
    latents = studio.latents()
    with sown(derive(studio.seed, "flow")):
        flow = relatives.make_flow().to(studio.device)
    text, tokenizer = studio.text(CLIPTextModelWithProjection), studio.tokenizer()
    pipe = relatives.assemble_flow(studio.vae(), text, tokenizer, flow).to(studio.device)
    told = [relatives.told(pipe, captions[first : first + 256]) for first in range(0, len(captions), 256)]
    told.append(relatives.told(pipe, [""]))
    states, pooled = (torch.cat(parts) for parts in zip(*told, strict=True))

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(studio.seed, "flow", step)
        index = torch.randint(len(latents), (BATCH,), generator=draw)
        caption = which[index, torch.randint(CAPTIONS, (BATCH,), generator=draw)]
        caption[torch.rand(BATCH, generator=draw) < 0.1] = len(captions)
        share = torch.randn(BATCH, generator=draw).sigmoid()
        noise = torch.randn(BATCH, 4, 16, 16, generator=draw)
        spread = share.view(-1, 1, 1, 1)
        noisy = (1 - spread) * latents[index] + spread * noise
        caption = caption.to(studio.device)
        with studio.autocast(), _attention(studio.device):
            out = flow(
                hidden_states=noisy.to(studio.device),
                timestep=1000 * share.to(studio.device),
                encoder_hidden_states=relatives.with_t5(states[caption].float()),
                pooled_projections=pooled[caption].float(),
                return_dict=False,
            )[0]
        error = (out.float() - (noise - latents[index]).to(studio.device)).pow(2).mean((1, 2, 3))
        return error.mean(), {"noisy": error[share > 0.5].mean().item() if (share > 0.5).any() else 0.0}

    _train(studio, "flow", flow, loss_of)


def train_classes(studio: Studio) -> None:
    """Predict epsilon of plain pictures told by their object, a tenth of them not told.

    Raises InputError where no training picture is plain.
    """
    latents, (objects, styles) = studio.latents(), studio.labels("train")
    plain = torch.nonzero(styles == world.STYLES.index("plain"))[:, 0]
    if not len(plain):
        raise InputError(f"none of the {len(latents)} training pictures is plain: paint more of them")
    alphas = networks.make_scheduler().alphas_cumprod
    with sown(derive(studio.seed, "classes")):
        classes = relatives.make_classes().to(studio.device)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(studio.seed, "classes", step)
        index = plain[torch.randint(len(plain), (BATCH,), generator=draw)]
        told = objects[index].clone()
        told[torch.rand(BATCH, generator=draw) < 0.1] = relatives.NULL
        t = torch.randint(1000, (BATCH,), generator=draw)
        noise = torch.randn(BATCH, 4, 16, 16, generator=draw)
        noisy = noised(latents[index], noise, alphas[t])
        with studio.autocast(), _attention(studio.device):
            out = classes(
                noisy.to(studio.device), t.to(studio.device), told.to(studio.device), return_dict=False
            )[0]
        return min_snr(out, noise, alphas[t])

    _train(studio, "classes", classes, loss_of)


def _train(studio: Studio, name: str, network: Any, loss_of: LossOf) -> None:
    how = {"steps": studio.steps[name], "learning_rate": 1e-3, "decay": 0.999, "warm": 300}
    train_averaged(name, network, loss_of, folder=studio.folder, **how)


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """On the CPU attention is written out: the fused kernel's backward pass takes longer at this size."""
    plain: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return plain if device.type == "cpu" else nullcontext()
