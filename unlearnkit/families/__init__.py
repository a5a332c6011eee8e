"""The seam to diffusers: a family is one module with the answers that differ between kinds of pipeline.

Nothing above this folder asks which family it has. A new family is a module with the functions of ``Family`` and a
place in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import ModelError
from . import class_unet, dit, flux, pixart, sd3, sdxl, stable_diffusion
from .index import REQUIRED
from .schedules import Schedule

__all__ = ["FAMILIES", "Family", "find", "supported"]


class Family(Protocol):
    """What a family's module answers. Shapes: n pictures, latents (n, c, h, w), states (n, rows, width).

    DEFAULTS: by the role of a setting, what suits the family better than a method's own default.
    PARTS: parts of the denoiser, and what they are. LACKS: why there is no other part, or no ``"attention"`` to read.
    """

    TITLE: str
    PIPELINES: tuple[str, ...]
    DENOISER: str
    DEFAULTS: dict[str, Any]
    PARTS: dict[str, str]
    LACKS: dict[str, str]

    def sampling(self, pipe: Any) -> tuple[int, float]:
        """Steps and guidance for a model that says nothing itself."""

    def check(self, pipe: Any) -> None:
        """Raise ModelError for a pipeline of this class that cannot be edited."""

    def belongs(self, part: str, name: str) -> bool:
        """Whether the denoiser's weight ``name`` belongs to ``part``."""

    def classes(self, pipe: Any) -> tuple[str, ...] | None:
        """The names of all classes, for a model that is told one of these, or its number, and no words."""

    def encode(self, pipe: Any, prompt: str, device: torch.device) -> Tensor:
        """The states of one prompt, (rows, width): of its tokens, and behind them what else the network is told.

        The empty prompt is what the pipeline itself takes for no prompt. Where T5 can be told how many
        tokens to give, it takes ``tokens`` as well.
        """

    def text(self, pipe: Any, states: Tensor) -> Tensor:
        """Of these states the text (n, tokens, width), as the part ``"text"`` reads it."""

    def last_token(self, pipe: Any, text: str) -> int:
        """Where in the states of a prompt that starts with ``text`` the last token of ``text`` is; 0 is the start."""

    def room(self, pipe: Any, text: str, tokens: int | None) -> tuple[int, int]:
        """How many tokens ``text`` has, and how many of a prompt the text encoder reads, its own marks aside.

        tokens: that T5 gives, None as the pipeline is meant. A model that is told a class refuses an unknown one.
        """

    def shape(self, pipe: Any, size: int | None) -> tuple[int, int, int]:
        """The shape (c, h, w) of one latent, for pictures of ``size`` pixels, or as the model is meant."""

    def latents(self, pipe: Any, pixels: Tensor) -> Tensor:
        """Latents of pixels (n, 3, height, width) in [-1, 1], without noise."""

    def schedule(self, pipe: Any, shape: tuple[int, int, int]) -> Schedule:
        """A fresh schedule for latents of this shape."""

    def predict(self, pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The network's own output, without a learned variance; t as the network is told it."""

    def guided(
        self,
        predict: Callable[[Tensor, Tensor, Tensor], Tensor],
        x: Tensor,
        t: Tensor,
        states: Tensor,
        null: Tensor,
        guidance: float,
    ) -> Tensor:
        """What the sampler follows, fp32: ``predict(x, t, states)`` under guidance away from ``null``."""

    def cross_attention(self, pipe: Any) -> dict[str, Any]:
        """The denoiser's cross-attention layers by name, as diffusers builds them (``processor``, ``to_q`` and so on).

        Raises ModelError where one works in a way that cannot be written out as softmax(Q Kᵀ / √d) V.
        """

    def draw(self, pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
        """Pictures or latents through the pipeline's own ``__call__``.

        how: its words ``height``, ``width``, ``num_inference_steps``, ``generator`` and ``output_type``, which is
        ``"pil"`` or ``"latent"``.
        """

    def saved(self, pipe: Any, folder: Path) -> None:
        """Add to a saved pipeline what its class forgets."""


FAMILIES: tuple[Family, ...] = (stable_diffusion, sdxl, sd3, flux, pixart, dit, class_unet)


def supported() -> str:
    """The supported pipeline classes, for messages."""
    return ", ".join(name for family in FAMILIES for name in family.PIPELINES)


def find(pipe: Any) -> Family:
    """The family of ``pipe``, or ModelError for a pipeline that is unsupported or must not be edited as it is."""
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
    """Whether an attention layer reads its fused matrices; older layers keep the mark after they are unfused."""
    newer = bool(getattr(module, "fused_projections", False)) and hasattr(module, "unfuse_projections")
    return newer or type(getattr(module, "processor", None)).__name__.startswith("Fused")


def _check_components(pipe: Any) -> None:
    """Raise ModelError for an adapter, which no saved folder would hold, and for weights that nothing may train."""
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
    """Raise ModelError for a denoiser whose weights are not simply there to be read and replaced."""
    if hasattr(denoiser, "_orig_mod") or getattr(denoiser, "_compiled_call_impl", None) is not None:
        raise ModelError("the denoiser is compiled: load the pipeline without torch.compile")
    quantised = (
        getattr(denoiser, "is_quantized", False) or getattr(denoiser, "hf_quantizer", None) is not None
    )
    if quantised or any(not weight.is_floating_point() for weight in denoiser.parameters()):
        raise ModelError("the denoiser is quantised: load it in float32 or bfloat16")
    # some pipelines leave a register without a hook in it
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
