"""The recipe's stages ``latents``, ``unet`` and ``never-knew``: the denoiser, and its twin that missed some words."""

from __future__ import annotations

import torch
from torch import Tensor

from ..seeds import derive, stream
from . import networks, world
from .loop import train_stage
from .studio import CAPTIONS, Studio, numbered, sown, write_array

__all__ = ["encode_latents", "train_never_knew", "train_unet"]


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


def _train(studio: Studio, name: str, keep: Tensor, seed: int) -> None:
    """Predict epsilon on the pictures of index ``keep``, with min-SNR-5 weights (Hang et al. 2023).

    A tenth of the captions is dropped for classifier-free guidance. What is kept is the moving average.
    """
    captions, which = numbered(studio.captions("train", held=False))
    states = networks.states(studio.text(), studio.tokenizer(), [*captions, ""])
    latents = studio.latents()
    alphas = networks.make_scheduler().alphas_cumprod
    with sown(derive(seed, name)):
        unet = networks.make_unet().to(studio.device)
    if studio.device.type == "cpu":  # the fused kernel's backward pass takes half of a step on this size
        from diffusers.models.attention_processor import AttnProcessor

        unet.set_attn_processor(AttnProcessor())

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = stream(seed, name, step)
        index = keep[torch.randint(len(keep), (64,), generator=draw)]
        caption = which[index, torch.randint(CAPTIONS, (64,), generator=draw)]
        caption[torch.rand(64, generator=draw) < 0.1] = len(captions)
        t = torch.randint(1000, (64,), generator=draw)
        noise = torch.randn(64, 4, 16, 16, generator=draw)
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents[index] + (1 - a).sqrt() * noise
        with studio.autocast():
            out = unet(noisy.to(studio.device), t.to(studio.device), states[caption.to(states.device)]).sample
        snr = (a / (1 - a)).flatten()
        error = (out.float() - noise.to(studio.device)).pow(2).mean((1, 2, 3))
        loss = (error * (snr.clamp(max=5) / snr).to(studio.device)).mean()
        return loss, {"error": error.mean().item()}

    average = train_stage(
        f"{name}-run",
        unet,
        loss_of,
        steps=studio.steps[name],
        learning_rate=1.2e-3,
        folder=studio.folder,
        decay=0.998,
        warm=200,
    )
    if average:
        unet.load_state_dict(average.shadow)
    unet.save_pretrained(studio.folder / name)


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
