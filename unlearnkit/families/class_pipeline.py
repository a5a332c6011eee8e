"""A pipeline for a class-conditional U-Net on pixels (``UNet2DModel``). diffusers has none.

It needs only torch and diffusers. A saved pipeline has a copy of this file as ``pipeline.py``, so that

    DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)

opens it without unlearnkit.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor

__all__ = ["ClassUNetPipeline"]


class ClassUNetPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Images of a class, by number; the U-Net's last class means no class.

    unet: a ``UNet2DModel`` with ``num_class_embeds``, on pixels in [-1, 1]. id2label: names by number, or none.
    """

    def __init__(self, unet: Any, scheduler: Any, id2label: dict[str, str] | None = None) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(id2label=id2label)
        names = id2label or {}
        self.labels = {name.strip(): int(number) for number in names for name in names[number].split(",")}

    @torch.no_grad()
    def __call__(
        self,
        class_labels: list[int],
        guidance_scale: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = 50,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """One image a class; output_type ``"latent"`` gives the pixels (n, c, h, w) as the U-Net leaves them."""
        unet, device = self.unet, self._execution_device
        side, n = unet.config.sample_size, len(class_labels)
        height, width = (side, side) if isinstance(side, int) else side
        shape = (n, unet.config.in_channels, height, width)
        x = randn_tensor(shape, generator=generator, device=device, dtype=unet.dtype)
        classes = torch.tensor(class_labels, device=device)
        null = torch.full_like(classes, unet.config.num_class_embeds - 1)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        x = x * self.scheduler.init_noise_sigma
        for t in self.progress_bar(self.scheduler.timesteps):
            x_in = self.scheduler.scale_model_input(x, t)
            if guidance_scale > 1:
                both = unet(torch.cat([x_in, x_in]), t, torch.cat([null, classes])).sample
                uncond, cond = both.chunk(2)
                output = uncond + guidance_scale * (cond - uncond)
            else:
                output = unet(x_in, t, classes).sample
            x = self.scheduler.step(output, t, x).prev_sample
        if output_type == "latent":
            return ImagePipelineOutput(images=x)
        pixels = (x / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(pixels) if output_type == "pil" else pixels)
