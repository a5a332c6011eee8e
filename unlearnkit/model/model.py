"""A text-to-image pipeline as one object with a few methods. ``wearing`` is the only one that changes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from ..families.opening import quiet
from ..io.tick import Advance
from . import sampling, saving
from .edit import Edit
from .hints import Hints
from .networks import Networks, Weights
from .restore import steady

__all__ = ["Model", "Weights"]


class Model(Networks):
    """A pipeline and what its family knows about it. Weights have full names: ``"unet.mid_block...weight"``.

    pipe: the diffusers pipeline. Its weights stay bitwise the same, except inside ``wearing``.
    Raises ModelError for a pipeline that is unsupported, offloaded, quantised, compiled or spread over devices.
    """

    @steady()
    def cast(self, dtype: torch.dtype) -> Model:
        """The model with its pipeline cast to another dtype, in place. Edits made from it before still fit."""
        fingerprints = (*self.earlier_fingerprints, self.fingerprint())
        with quiet():
            pipe = self.pipe.to(dtype=dtype)
            model = Model(pipe, source=self.source, hints=self.hints, variant=self.variant)
        model.earlier_fingerprints = fingerprints
        return model

    def with_hints(self, hints: Hints) -> Model:
        """The same pipeline with other hints. Cached prompts stay."""
        model = Model(self.pipe, source=self.source, hints=hints, variant=self.variant)
        if hints.tokens == self.hints.tokens:
            model._states = self._states
        return model

    @steady()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str | None = None,
        batch: int | None = None,
        tick: Advance | None = None,
    ) -> list[Image.Image]:
        """One image for each prompt and seed, through the pipeline's own ``__call__`` and scheduler.

        Each seed goes unchanged to a generator, so plain diffusers with ``torch.Generator().manual_seed(seed)`` draws
        the same image, bit for bit at ``batch=1``. Other batch sizes use the same noise, but kernels may sum in another
        order. That differs by about 1e-6, which can move a pixel by 1 of 255.

        steps, guidance: default: the hints'. negative: default: the empty prompt. batch: images at once, default:
        ``self.batch``. tick: called as ``tick(done, total)`` after each batch.
        """
        images: list[Image.Image] = []
        for drawn in sampling.drawn(self, prompts, seeds, steps, guidance, negative, batch, "pil"):
            images += drawn
            if tick:
                tick(len(images), len(prompts))
        return images

    @steady()
    def save(self, folder: str | Path, edit: Edit | None = None) -> None:
        """Write a whole diffusers pipeline, with the edit applied, that plain diffusers loads. Whole or not at all.

        The new folder is opened, compared and drawn with before it takes its place. Raises InputError if ``folder``
        exists or cannot be written, ModelError for a pipeline that would not open or draw unchanged, EditError for an
        edit with guards, which a folder of weights cannot hold.
        """
        saving.save(self, Path(folder), edit)
