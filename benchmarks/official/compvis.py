"""A diffusers pipeline with the methods of CompVis's LatentDiffusion that RGD's and SalUn's scripts call.

The arithmetic is that of the usual loss: pictures through the VAE, uniform timesteps, the squared error of the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

__all__ = ["LatentDiffusion"]


class LatentDiffusion(nn.Module):
    """``model.diffusion_model`` is the U-Net, which alone is trained.

    drawn: pictures become a draw from the VAE's distribution, as in CompVis's code, or its mean.
    """

    first_stage_key, num_timesteps, device = "jpg", 1000, torch.device("cpu")

    def __init__(self, folder: Path, *, drawn: bool = True) -> None:
        super().__init__()
        self.drawn = drawn
        pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        self.model: Any = nn.Module()
        self.model.diffusion_model = pipe.unet
        self.rest = SimpleNamespace(vae=pipe.vae.requires_grad_(False), words=pipe.tokenizer)
        self.rest.text = pipe.text_encoder.requires_grad_(False)
        self.alphas = pipe.scheduler.alphas_cumprod

    def get_input(self, batch: Mapping[str, Any], key: str) -> tuple[Tensor, Tensor]:
        """Latents of pictures (n, h, w, 3), and the states of their prompts."""
        with torch.no_grad():
            found = self.rest.vae.encode(batch[key].permute(0, 3, 1, 2)).latent_dist
            found = found.sample() if self.drawn else found.mode()
            words = self.rest.words(batch["txt"], padding="max_length", return_tensors="pt").input_ids
            return found * self.rest.vae.config.scaling_factor, self.rest.text(words)[0]

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        share: Tensor = self.alphas[t].view(-1, 1, 1, 1)
        return share.sqrt() * x_start + (1 - share).sqrt() * noise

    def apply_model(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        found: Tensor = self.model.diffusion_model(x, t, states).sample
        return found

    def shared_step(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        x, states = self.get_input(batch, self.first_stage_key)
        t, noise = torch.randint(self.num_timesteps, (len(x),)), torch.randn_like(x)
        self.noise = noise  # for whoever wants to do the same again
        loss = (self.apply_model(self.q_sample(x, t, noise), t, states) - noise).square().mean()
        return loss, {}
