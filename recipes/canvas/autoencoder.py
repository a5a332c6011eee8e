"""The recipe's stages ``vae`` and ``decoder``: the autoencoder, and then its decoder alone."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

import networks
from loop import train_stage
from studio import Studio, sown
from unlearnkit.seeds import derive, stream

__all__ = ["refine_decoder", "train_vae"]


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def _reconstruction(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """L1 + L2 + half an L1 of the image gradients; and the L1 alone."""
    l1 = F.l1_loss(y, x)
    edges = [F.l1_loss(a, b) for a, b in zip(_gradients(y), _gradients(x), strict=True)]
    return l1 + F.mse_loss(y, x) + 0.5 * sum(edges, torch.zeros_like(l1)), l1


def train_vae(studio: Studio) -> None:
    """The reconstruction loss and 1e-3 KL per latent element; then the scale that gives latents a spread of one."""
    with sown(derive(studio.seed, "vae")):
        vae = networks.make_vae().to(studio.device)
    data = studio.data("train")

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        draw = stream(studio.seed, "vae", step)
        x = studio.images(data, torch.randint(len(data), (32,), generator=draw))
        with studio.autocast():
            posterior = vae.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=draw).to(studio.device)
            y = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss, l1 = _reconstruction(y.float(), x)
        return loss + 1e-3 * kl, {"l1": l1, "kl": kl}

    steps = studio.steps["vae"]
    train_stage("vae-run", vae, loss_of, steps=steps, learning_rate=1.5e-3, folder=studio.folder)
    sample = torch.randint(len(data), (min(2048, len(data)),), generator=stream(studio.seed, "vae-scale"))
    with torch.no_grad():
        parts = [vae.encode(studio.images(data, i)).latent_dist.mean for i in torch.split(sample, 256)]
    vae.register_to_config(scaling_factor=round(1 / torch.cat(parts).std().item(), 5))
    vae.save_pretrained(studio.folder / "vae")


def refine_decoder(studio: Studio) -> None:
    """Train the decoder further while the encoder, and so every latent, stays as it is."""
    vae = AutoencoderKL.from_pretrained(studio.made("vae", by="vae")).to(studio.device)
    data, latents = studio.data("train"), studio.latents()
    decoder = nn.ModuleList([vae.post_quant_conv, vae.decoder])

    def loss_of(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        draw = stream(studio.seed, "decoder", step)
        index = torch.randint(len(data), (32,), generator=draw)
        z = latents[index] + 0.04 * torch.randn(32, 4, 16, 16, generator=draw)
        x = studio.images(data, index)
        with studio.autocast():
            y = vae.decode(z.to(studio.device) / vae.config.scaling_factor).sample
        loss, l1 = _reconstruction(y.float(), x)
        return loss, {"l1": l1}

    steps = studio.steps["decoder"]
    train_stage("decoder-run", decoder, loss_of, steps=steps, learning_rate=8e-4, folder=studio.folder)
    vae.save_pretrained(studio.folder / "vae-refined")
