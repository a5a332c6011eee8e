"""The recipe's stages ``latents``, ``unet`` and ``never-knew``: the denoiser, and its twin that missed some words."""

from __future__ import annotations

import torch
from torch import Tensor

import networks
from loop import train_averaged
from studio import CAPTIONS, Studio, numbered, sown, write_array
from unlearnkit.canvas import world
from unlearnkit.seeds import derive, stream

__all__ = ["encode_latents", "min_snr", "noised", "train_never_knew", "train_unet"]


@torch.no_grad()
def encode_latents(studio: Studio) -> None:
    """Encode the training pictures once."""
    vae, data = studio.vae(), studio.data("train")
    with studio.autocast():
        parts = [
            vae.encode(studio.images(data, index)).latent_dist.mean.float().cpu()
            for index in torch.split(torch.arange(len(data)), 256)
        ]
    write_array(studio.folder / "latents.npy", (torch.cat(parts) * vae.config.scaling_factor).numpy())


def noised(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Latents (n, 4, 16, 16) with noise, at the cumulative products ``alphas`` (n,) of their steps."""
    a = alphas.view(-1, 1, 1, 1)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def min_snr(out: Tensor, noise: Tensor, alphas: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of epsilon with min-SNR-5 weights (Hang et al. 2023), and the error without them."""
    snr = (alphas / (1 - alphas)).to(out.device)
    error = (out.float() - noise.to(out.device)).pow(2).mean((1, 2, 3))
    return (error * (snr.clamp(max=5) / snr)).mean(), {"error": error.mean()}


def _train(studio: Studio, name: str, keep: Tensor, seed: int) -> None:
    """Predict epsilon on the pictures of index ``keep``; a tenth of the captions is dropped for guidance."""
    captions, which = numbered(studio.captions("train", held_out=False))
    states = networks.states(studio.text(), studio.tokenizer(), [*captions, ""])
    latents = studio.latents()
    alphas = networks.make_scheduler().alphas_cumprod
    with sown(derive(seed, name)):
        unet = networks.make_unet().to(studio.device)
    if studio.device.type == "cpu":  # the fused kernel's backward pass takes half of a step on this size
        from diffusers.models.attention_processor import AttnProcessor

        unet.set_attn_processor(AttnProcessor())

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        draw = stream(seed, name, step)
        index = keep[torch.randint(len(keep), (64,), generator=draw)]
        caption = which[index, torch.randint(CAPTIONS, (64,), generator=draw)]
        caption[torch.rand(64, generator=draw) < 0.1] = len(captions)
        t = torch.randint(1000, (64,), generator=draw)
        noise = torch.randn(64, 4, 16, 16, generator=draw)
        noisy = noised(latents[index], noise, alphas[t])
        with studio.autocast():
            out = unet(noisy.to(studio.device), t.to(studio.device), states[caption.to(states.device)]).sample
        return min_snr(out, noise, alphas[t])

    how = {"steps": studio.steps[name], "learning_rate": 1.2e-3, "decay": 0.998, "warm": 200}
    train_averaged(name, unet, loss_of, folder=studio.folder, **how)


def train_unet(studio: Studio) -> None:
    """The canvas model's U-Net: every training picture."""
    _train(studio, "unet", torch.arange(studio.painted["train"]), studio.seed)


def train_never_knew(studio: Studio) -> None:
    """The U-Net that never saw ``world.NEVER_KNEW_OBJECTS`` and ``NEVER_KNEW_STYLES``; from another seed."""
    keep = [
        i
        for i, p in enumerate(studio.pictures("train"))
        if p.object not in world.NEVER_KNEW_OBJECTS and p.style not in world.NEVER_KNEW_STYLES
    ]
    _train(studio, "never-knew", torch.tensor(keep), derive(studio.seed, "another"))
