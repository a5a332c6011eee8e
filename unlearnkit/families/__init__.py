"""The interface to diffusers: a family is one module with everything that differs between kinds of pipeline.

Code outside this folder does not depend on the family. A new family is a module with the functions of ``Family`` and an
entry in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..io.lazy import importing

with importing():
    from . import class_unet, dit, flux, pixart, sd3, sdxl, stable_diffusion
    from .index import REQUIRED
    from .schedules import Schedule

__all__ = ["FAMILIES", "Family", "any_size", "find", "supported"]


class Family(Protocol):
    """The functions of a family's module. Shapes: n images, latents (n, c, h, w), states (n, rows, width).

    DEFAULTS: by the role of a setting, the family's default in place of the method's.
    PARTS: parts of the denoiser with descriptions. LACKS: why a part, or readable ``"attention"``, is missing.
    """

    TITLE: str
    PIPELINES: tuple[str, ...]
    DENOISER: str
    DEFAULTS: dict[str, Any]
    PARTS: dict[str, str]
    LACKS: dict[str, str]

    def sampling(self, pipe: Any) -> tuple[int, float]:
        """Default steps and guidance, for a model without hints."""

    def check(self, pipe: Any) -> None:
        """Raise ModelError for a pipeline of this class that cannot be edited."""

    def belongs(self, part: str, name: str) -> bool:
        """Whether the denoiser's weight ``name`` belongs to ``part``."""

    def classes(self, pipe: Any) -> tuple[str, ...] | None:
        """The class names of a class-conditional model, None for a model with text prompts."""

    def encode(self, pipe: Any, prompt: str, device: torch.device) -> Tensor:
        """The states (rows, width) of one prompt: of its tokens, then pooled vectors, masks and the like.

        The empty prompt gives the pipeline's own unconditional states. Families with a setting for the number of T5
        tokens take ``tokens`` as well.
        """

    def text(self, pipe: Any, states: Tensor) -> Tensor:
        """The text states (n, tokens, width) in these states, as the part ``"text"`` reads them."""

    def last_token(self, pipe: Any, text: str) -> int:
        """The index of the last token of ``text`` in the states of a prompt that starts with it; 0 is the start."""

    def room(self, pipe: Any, text: str, tokens: int | None) -> tuple[int, int]:
        """The number of tokens of ``text``, and the most that the text encoder reads, without start and end tokens.

        tokens: the number of T5 tokens, None for the pipeline's default. Raises InputError for an unknown class.
        """

    def shape(self, pipe: Any, size: int | None) -> tuple[int, int, int]:
        """The shape (c, h, w) of one latent, for images of ``size`` pixels, or of the model's default size."""

    def posterior(self, pipe: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of pixels (n, 3, height, width) in [-1, 1], without noise."""

    def decoded(self, pipe: Any, latents: Tensor) -> Tensor:
        """Pixels (n, 3, height, width), about -1 to 1, of latents without noise."""

    def schedule(self, pipe: Any, shape: tuple[int, int, int]) -> Schedule:
        """A fresh schedule for latents of this shape."""

    def predict(self, pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The network's raw output, without a learned variance; t as ``Schedule.model_timestep`` gives it."""

    def guided(
        self,
        predict: Callable[[Tensor, Tensor, Tensor], Tensor],
        x: Tensor,
        t: Tensor,
        states: Tensor,
        null: Tensor,
        guidance: float,
    ) -> Tensor:
        """The guided output, fp32: ``predict(x, t, states)`` with classifier-free guidance against ``null``."""

    def cross_attention(self, pipe: Any) -> dict[str, Any]:
        """The denoiser's cross-attention layers by name, as diffusers builds them (``processor``, ``to_q`` and so on).

        Raises ModelError for a layer that is not softmax(Q Kᵀ / √d) V.
        """

    def draw(self, pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
        """Images or latents through the pipeline's own ``__call__``.

        how: its arguments ``height``, ``width``, ``num_inference_steps``, ``generator`` and ``output_type``, which is
        ``"pil"`` or ``"latent"``.
        """

    def saved(self, pipe: Any, folder: Path) -> None:
        """Add to a saved pipeline what its class does not save."""


FAMILIES: tuple[Family, ...] = (stable_diffusion, sdxl, sd3, flux, pixart, dit, class_unet)


def any_size(family: Family) -> bool:
    """Whether a family's denoiser takes latents of other heights and widths than its own, as a U-Net does."""
    return family.DENOISER == "unet"


def supported() -> str:
    """The supported pipeline classes, for messages."""
    return ", ".join(name for family in FAMILIES for name in family.PIPELINES)


def find(pipe: Any) -> Family:
    """The family of ``pipe``. Raises ModelError for a pipeline that is unsupported or cannot be edited as it is."""
    name = type(pipe).__name__
    for family in FAMILIES:
        if name in family.PIPELINES:
            _check_present(name, pipe)
            _check_denoiser(getattr(pipe, family.DENOISER))
            _check_components(pipe)
            family.check(pipe)
            return family
    raise ModelError(f"pipeline {name} is not supported: use one of {supported()}")


def _check_present(name: str, pipe: Any) -> None:
    """Raise ModelError for a pipeline in memory that lacks a component."""
    for part in REQUIRED[name]:
        if getattr(pipe, part, None) is None:
            raise ModelError(f"the pipeline has no {part}: load it whole")


def _fused(module: nn.Module) -> bool:
    """Whether an attention layer uses fused matrices. Older layers keep the flag after they are unfused."""
    newer = bool(getattr(module, "fused_projections", False)) and hasattr(module, "unfuse_projections")
    return newer or type(getattr(module, "processor", None)).__name__.startswith("Fused")


def _check_components(pipe: Any) -> None:
    """Raise ModelError for an adapter, which a saved folder would lose, and for weights that cannot be trained."""
    for part, network in pipe.components.items():
        weights = dict(network.named_parameters()) if isinstance(network, nn.Module) else {}
        if any(weight.is_inference() for weight in weights.values()):
            raise ModelError(
                f"the {part} was made inside torch.inference_mode: load the pipeline outside of it, or with "
                "unlearnkit.load"
            )
        if any("lora_" in name for name in weights):
            raise ModelError(
                f"the {part} carries a LoRA: fuse it (fuse_lora, unload_lora_weights) or load without it"
            )


def _check_denoiser(denoiser: nn.Module) -> None:
    """Raise ModelError for a denoiser whose weights cannot be read and replaced."""
    if hasattr(denoiser, "_orig_mod") or getattr(denoiser, "_compiled_call_impl", None) is not None:
        raise ModelError("the denoiser is compiled: load the pipeline without torch.compile")
    quantised = (
        getattr(denoiser, "is_quantized", False) or getattr(denoiser, "hf_quantizer", None) is not None
    )
    if quantised or any(not weight.is_floating_point() for weight in denoiser.parameters()):
        raise ModelError("the denoiser is quantised: load it in float32 or bfloat16")
    # some pipelines leave an empty hook register
    registers = [getattr(module, "_diffusers_hook", None) for module in denoiser.modules()]
    if any(hasattr(module, "_hf_hook") for module in denoiser.modules()) or any(
        register is not None and register.hooks for register in registers
    ):
        raise ModelError(
            "the denoiser is offloaded or hooked: load the pipeline on one device, without offloading"
        )
    if any(map(_fused, denoiser.modules())):
        raise ModelError(
            "the denoiser's projections are fused, so its own weights draw nothing: call unfuse_qkv_projections()"
        )
    devices = {weight.device.type for weight in denoiser.parameters()}
    if "meta" in devices:
        name = next(name for name, weight in denoiser.named_parameters() if weight.device.type == "meta")
        raise ModelError(
            f"the denoiser has no value for weight {name!r}: its file is incomplete, fetch it again"
        )
    if len(devices) > 1:
        raise ModelError(f"the denoiser is spread over {', '.join(sorted(devices))}: load it on one device")
