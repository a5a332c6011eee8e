"""What the evaluators must see past: blur, noise, recompression, shifts, and the autoencoder's round trip."""

from __future__ import annotations

import io

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unlearnkit.seeds import stream

__all__ = ["degrade", "round_trips"]


@torch.no_grad()
def round_trips(
    vae: AutoencoderKL, data: NDArray[np.uint8], device: torch.device, *, seed: int
) -> NDArray[np.uint8]:
    """Encode, disturb by up to a fifth of the latents' spread, decode: uint8 (n, 64, 64, 3)."""
    out = np.empty_like(data)
    for start in range(0, len(data), 128):
        draw = stream(seed, "trip", start)
        x = torch.from_numpy(data[start : start + 128].copy()).to(device)
        x = x.permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = vae.encode(x).latent_dist.mean
        size = torch.rand(len(x), 1, 1, 1, generator=draw) * 0.2 / vae.config.scaling_factor
        latents = latents + (torch.randn(latents.shape, generator=draw) * size).to(device)
        y = ((vae.decode(latents).sample.clamp(-1, 1) + 1) * 127.5).round().byte()
        out[start : start + 128] = y.permute(0, 2, 3, 1).cpu().numpy()
    return out


def _blur(images: Tensor, sigma: float) -> Tensor:
    x = torch.arange(-2, 3, device=images.device, dtype=images.dtype)
    k = torch.exp(-(x**2) / (2 * sigma**2))
    k = k / k.sum()
    channels = images.shape[1]
    across, down = k.view(1, 1, 1, 5), k.view(1, 1, 5, 1)
    images = F.pad(images, (2, 2, 0, 0), "reflect")
    images = F.conv2d(images, across.repeat(channels, 1, 1, 1), groups=channels)
    images = F.pad(images, (0, 0, 2, 2), "reflect")
    return F.conv2d(images, down.repeat(channels, 1, 1, 1), groups=channels)


def _recompress(image: Tensor, quality: int) -> Tensor:
    array = ((image.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=quality)
    back = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 127.5 - 1
    return back.to(image.device)


def degrade(images: Tensor, draw: torch.Generator) -> Tensor:
    """Disturb a batch (n, 3, 64, 64) in [-1, 1]: each picture gets its own mix; about a third stays nearly clean."""
    n = len(images)
    kind = torch.randint(6, (n,), generator=draw)
    sigma = 0.4 + 0.7 * torch.rand(1, generator=draw).item()
    images = images.clone()
    blurred = kind.eq(0).nonzero().flatten()
    if len(blurred):
        images[blurred] = _blur(images[blurred], sigma)
    for i in kind.eq(1).nonzero().flatten().tolist():
        images[i] = _recompress(images[i], int(torch.randint(35, 91, (1,), generator=draw)))
    noise = torch.randn(images.shape, generator=draw) * (kind.ge(2) & kind.le(3)).view(-1, 1, 1, 1) * 0.12
    noise = noise * torch.rand(n, 1, 1, 1, generator=draw)
    light = 1 + 0.12 * torch.randn(n, 1, 1, 1, generator=draw)
    images = (images * light.to(images.device) + noise.to(images.device)).clamp(-1, 1)
    dy, dx = torch.randint(-4, 5, (2,), generator=draw).tolist()
    padded = F.pad(images, (4, 4, 4, 4), "replicate")
    return padded[:, :, 4 + dy : 68 + dy, 4 + dx : 68 + dx]
