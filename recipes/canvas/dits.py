"""The recipe's stages ``flow`` and ``classes``: a flow transformer that reads, and one that is told a class.

Both see the pictures and the latents of the canvas model's U-Net, and share its autoencoder and text tower. On a GPU
they are compiled, and a step has sixteen times as many pictures.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModelWithProjection

import networks
import relatives
from loop import LossOf, train_averaged
from studio import CAPTIONS, Studio, numbered, sown
from unets import min_snr, noised
from unlearnkit.canvas import world
from unlearnkit.errors import InputError
from unlearnkit.seeds import derive, stream

__all__ = ["train_classes", "train_flow"]

BATCH = {"cpu": 32, "cuda": 512}


def train_flow(studio: Studio) -> None:
    """Rectified flow on noise shares from a logit-normal (Esser et al. 2024), a tenth of the captions dropped."""
    captions, which = numbered(studio.captions("train", held_out=False))
    latents, batch = studio.latents().to(studio.device), BATCH[studio.device.type]
    with sown(derive(studio.seed, "flow")):
        flow = relatives.make_flow().to(studio.device)
    seen = _quick(flow, studio.device)
    text, tokenizer = studio.text(CLIPTextModelWithProjection), studio.tokenizer()
    pipe = relatives.assemble_flow(studio.vae(), text, tokenizer, flow).to(studio.device)
    told = [relatives.told(pipe, captions[first : first + 256]) for first in range(0, len(captions), 256)]
    told.append(relatives.told(pipe, [""]))
    states, pooled = (torch.cat(parts) for parts in zip(*told, strict=True))

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        draw = stream(studio.seed, "flow", step)
        index = torch.randint(len(latents), (batch,), generator=draw)
        caption = which[index, torch.randint(CAPTIONS, (batch,), generator=draw)]
        caption[torch.rand(batch, generator=draw) < 0.1] = len(captions)
        share = torch.randn(batch, generator=draw).sigmoid()
        noise = torch.randn(batch, 4, 16, 16, generator=draw)
        index, caption, share, noise = studio.sent(index, caption, share, noise)
        clean, spread = latents[index], share.view(-1, 1, 1, 1)
        with studio.autocast(), _attention(studio.device):
            out = seen(
                hidden_states=(1 - spread) * clean + spread * noise,
                timestep=1000 * share,
                encoder_hidden_states=relatives.with_t5(states[caption].float()),
                pooled_projections=pooled[caption].float(),
                return_dict=False,
            )[0]
        error, noisy = (out.float() - (noise - clean)).pow(2).mean((1, 2, 3)), (share > 0.5).float()
        return error.mean(), {"noisy": (error * noisy).sum() / noisy.sum().clamp_min(1.0)}

    _train(studio, "flow", flow, loss_of)


def train_classes(studio: Studio) -> None:
    """Predict epsilon of plain pictures told by their object, a tenth of them not told.

    Raises InputError where no training picture is plain.
    """
    latents, (objects, styles) = studio.latents(), studio.labels("train")
    plain = torch.nonzero(styles == world.STYLES.index("plain"))[:, 0]
    if not len(plain):
        raise InputError(f"none of the {len(latents)} training pictures is plain: paint more of them")
    alphas, batch = networks.make_scheduler().alphas_cumprod, BATCH[studio.device.type]
    with sown(derive(studio.seed, "classes")):
        classes = relatives.make_classes().to(studio.device)
    seen = _quick(classes, studio.device)

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        draw = stream(studio.seed, "classes", step)
        index = plain[torch.randint(len(plain), (batch,), generator=draw)]
        told = objects[index].clone()
        told[torch.rand(batch, generator=draw) < 0.1] = relatives.NULL
        t = torch.randint(1000, (batch,), generator=draw)
        noise = torch.randn(batch, 4, 16, 16, generator=draw)
        noisy = noised(latents[index], noise, alphas[t])
        sent = studio.sent(noisy, t, told)
        with studio.autocast(), _attention(studio.device):
            out = seen(*sent, return_dict=False)[0]
        return min_snr(out, noise, alphas[t])

    _train(studio, "classes", classes, loss_of)


def _train(studio: Studio, name: str, network: Any, loss_of: LossOf) -> None:
    how = {"steps": studio.steps[name], "learning_rate": 1e-3, "decay": 0.999, "warm": 300}
    train_averaged(name, network, loss_of, folder=studio.folder, **how)


def _quick(network: Any, device: torch.device) -> Any:
    """The network, compiled for a GPU, which would wait for the next small kernel most of the time."""
    return network if device.type == "cpu" else torch.compile(network)


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """On the CPU attention is written out: the fused kernel's backward pass takes longer at this size."""
    plain: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return plain if device.type == "cpu" else nullcontext()
