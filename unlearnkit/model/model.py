"""A text-to-image pipeline as one object with a few methods. ``wearing`` is the only one that changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import families
from ..errors import InputError, ModelError, quoted
from ..families.opening import quiet
from ..io import processes
from ..schema import check_unicode
from . import hints, identity, restore, sampling, selection
from .edit import Edit
from .encoders import States, encoders, soft_prefix
from .hints import Hints
from .hooks import Hook, attached
from .restore import steady
from .weights import WeightSwap

__all__ = ["Model", "Weights"]

Weights = Mapping[str, Tensor]
# the most images of one batch, and the most positions of all its latents: those of 1024 x 1024 pixels
MOST, POSITIONS = 32, 2**14


class Model:
    """A pipeline and what its family knows about it. Weights have full names: ``"unet.mid_block...weight"``.

    pipe: the diffusers pipeline. Its weights stay bitwise the same, except inside ``wearing``.
    Raises ModelError for a pipeline that is unsupported, offloaded, quantised, compiled or spread over devices.
    """

    @steady()
    def __init__(
        self,
        pipe: Any,
        *,
        source: str = "a pipeline in memory",
        hints: Hints = hints.GENERAL,
        variant: str | None = None,
    ) -> None:
        self.family = families.find(pipe)
        self.classes = self.family.classes(pipe)  # names of a class-conditional model's classes, else None
        self.pipe, self.source, self.variant = pipe, source, variant
        self.hints = hints.suited(self.family.sampling(pipe), self.classes)
        if hints.tokens and "tokens" not in signature(self.family.encode).parameters:
            raise ModelError(
                f"{self.family.TITLE} has no setting for the number of T5 tokens: take sampling.tokens out of the hints"
            )
        self.denoiser: nn.Module = getattr(pipe, self.family.DENOISER)
        first = next(self.denoiser.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.shape: tuple[int, int, int] = self.family.shape(pipe, hints.size)  # (c, h, w) of one latent
        self.batch = max(1, min(MOST, POSITIONS // (self.shape[1] * self.shape[2])))  # images, by default
        self.schedule = self.family.schedule(pipe, self.shape)
        self.swap = WeightSwap({self.family.DENOISER: self.denoiser, **encoders(pipe)})
        self.hooks: list[Hook] = []  # of the edits applied now
        self.earlier_fingerprints: tuple[str, ...] = ()  # in the dtypes it had before ``cast``
        self._states = States(pipe)

    @property
    def precision(self) -> str:
        """The dtype's name, such as ``"float32"``."""
        return str(self.dtype).removeprefix("torch.")

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

    def check(self, edit: Edit) -> None:
        """Raises EditError for an edit made from another denoiser, or from another text encoder if it changes one."""
        identity.check(self, edit)

    # prompts and images to tensors

    @steady()
    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """The conditioning (n, rows, width) of prompts: their tokens' states first, then pooled vectors and the like.

        Each prompt is encoded once, in a batch of its own. It is encoded again after the text encoders' weights were
        replaced or changed in place. The empty prompt gives the pipeline's own unconditional states. The prompt of a
        class-conditional model is a class's name or number.
        """
        return self._states.of(prompts, self._encoded)

    def conditioning(self, prompts: Sequence[str], vectors: Mapping[str, Tensor] | None = None) -> Tensor:
        """What ``encode`` gives, without the cache, with gradient to the text encoders' present weights.

        vectors: (k, width) by text encoder, in place of the embeddings of each prompt's first k tokens.
        """
        if torch.is_grad_enabled():  # the backward pass reads the text encoders' weights where they are now
            for encoder in encoders(self.pipe).values():
                if next(encoder.parameters()).device != self.device:
                    encoder.to(self.device)
        with nullcontext() if vectors is None else soft_prefix(self.pipe, vectors):
            return torch.stack([self._encoded(prompt) for prompt in prompts])

    def _encoded(self, prompt: str) -> Tensor:
        check_unicode(prompt)
        encode: Callable[..., Tensor] = self.family.encode
        tokens = {"tokens": self.hints.tokens} if self.hints.tokens else {}
        with self.onload(), restore.running(self.source):
            return encode(self.pipe, prompt, self.device, **tokens)

    @steady()
    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """The text states (n, tokens, width) of prompts, as the matrices of the part ``text`` read them."""
        return self.family.text(self.pipe, self.encode(prompts))

    def last_token(self, text: str) -> int:
        """The index of the last token of ``text`` in the states of any prompt that starts with it (0: no token)."""
        with restore.running(self.source):
            return self.family.last_token(self.pipe, text)

    def reads(self, text: str) -> None:
        """Raises InputError for a text that the text encoder would cut off, and for an unknown class."""
        with restore.running(self.source):
            tokens, room = self.family.room(self.pipe, text, self.hints.tokens)
        if tokens > room:
            raise InputError(
                f"{quoted(text)} is {tokens:,} tokens long, and the text encoder of {self.source} reads {room}: "
                "use a shorter wording"
            )

    @steady()
    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        """Latents (n, c, h, w), fp32, of RGB images of the model's size."""
        pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
        with self.onload(), restore.running(self.source):
            return self.family.latents(self.pipe, pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).float()

    # the noise schedule and the network

    @property
    def num_timesteps(self) -> int:
        """Training timesteps: t runs from 0 (image) to ``num_timesteps - 1`` (noise)."""
        return self.schedule.num_timesteps

    @steady()
    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, fp32, of latents and noise (n, c, h, w) at timesteps t (n,)."""
        return self.schedule.add_noise(latents, noise, t)

    @steady()
    def training_target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """What ``eps`` should be for latents with this noise: the noise; for a flow, noise minus latents."""
        return self.schedule.training_target(latents, noise)

    @steady()
    def predicted_x0(self, latents: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The latents without noise, fp32, that a prediction of ``eps`` implies for x_t at timesteps t (n,)."""
        return self.schedule.predicted_x0(latents, eps, t)

    @steady()
    def forward(self, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """What ``predict`` gives, computed by this process alone."""
        with restore.running(self.source):
            time = self.schedule.model_timestep(t)
            return self.family.predict(self.pipe, latents.to(self.dtype), time, states)

    @steady()
    def predict(self, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The network's raw output: latents (n, c, h, w), timesteps (n,), states (n, rows, width) of ``encode``."""
        return processes.by_rows(self.forward, latents, t, states)

    @steady()
    def eps(self, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The prediction that losses use, fp32: the noise, whatever the network predicts; the velocity of a flow."""
        return self.schedule.prediction(self.predict(latents, t, states), latents, t)

    # images out

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
        tick: Callable[[int, int], None] | None = None,
    ) -> list[Image.Image]:
        """One image for each prompt and seed, through the pipeline's own ``__call__`` and scheduler.

        Each seed goes unchanged to a generator, so plain diffusers with ``torch.Generator().manual_seed(seed)`` draws
        the same image, bit for bit at ``batch=1``. Other batch sizes use the same noise, but kernels may sum in another
        order: differences of about 1e-6, which can move a pixel by 1 of 255.
        steps, guidance: default: the hints'. negative: default: the empty prompt. batch: images at once, default:
        ``self.batch``. tick: called as ``tick(done, total)`` after each batch.
        """
        images: list[Image.Image] = []
        for drawn in sampling.drawn(self, prompts, seeds, steps, guidance, negative, batch, "pil"):
            images += drawn
            if tick:
                tick(len(images), len(prompts))
        return images

    # the weights

    def weights(self, part: str = "all") -> dict[str, Tensor]:
        """The present weights of a part.

        part: of the denoiser ``xattn-kv``, ``xattn``, ``not-xattn``, ``text``, ``values`` or ``all``; ``text-encoder``
            is the layers of all text encoders, without norms and embeddings.
        Raises InputError for a part that is unknown, or that a model of this family does not have.
        """
        return self.swap.weights(selection.belongs(self, part))

    def values(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The present weights of these full names. Raises EditError for a name that the model does not have."""
        return self.swap.values(names)

    @contextmanager
    def wearing(self, edit: Edit | Weights) -> Iterator[Model]:
        """The model with an edit applied inside the ``with`` block; the weights are restored afterwards. It nests.

        Values of another dtype or device are cast once, and gradients flow through the cast to the edit's tensors. The
        network is not copied. An edit's guards act as well. A plain mapping (``edit.weights``) is checked for names and
        shapes only. Raises EditError for an edit of another model, and for unknown names or other shapes.
        """
        weights, hooks = (edit.weights, edit.hooks) if isinstance(edit, Edit) else (edit, ())
        if isinstance(edit, Edit):
            self.check(edit)
        with self.swap.swapped(weights), attached(self, hooks):
            before, self.hooks = self.hooks, [*self.hooks, *hooks]
            try:
                yield self
            finally:
                self.hooks = before

    @steady()
    def fingerprint(self, part: str | None = None) -> str:
        """sha256 over the names, shapes and present values of a component, the same in every dtype that fits them.

        part: the name of the denoiser or a text encoder. None: the denoiser, with the guards and the text encoders
            that applied edits change.
        """
        return identity.fingerprint(self, part)

    def frozen(self) -> AbstractContextManager[None]:
        """Every network in eval mode and without gradients inside; the flags are restored afterwards."""
        return restore.frozen(self.pipe)

    def offload(self) -> AbstractContextManager[None]:
        """Text encoders and VAE on the CPU inside. A new prompt or an image brings them back for a moment."""
        return restore.auxiliary_on(self.pipe, self.denoiser, torch.device("cpu"))

    def onload(self) -> AbstractContextManager[None]:
        """Text encoders and VAE on the denoiser's device inside."""
        return restore.auxiliary_on(self.pipe, self.denoiser, self.device)

    def checkpointing(
        self, on: bool = True, through: Callable[..., Any] | None = None
    ) -> AbstractContextManager[None]:
        """Gradient checkpointing inside: less memory, about a third more time.

        through: called with every block and its inputs, in place of torch's own checkpoint.
        """
        return restore.checkpointing(self.denoiser, on, through)

    @steady()
    def save(self, folder: str | Path, edit: Edit | None = None) -> None:
        """Write a whole diffusers pipeline, with the edit applied, that plain diffusers loads. Whole or not at all.

        The new folder is opened, compared and drawn with before it takes its place. Raises InputError if ``folder``
        exists or cannot be written, ModelError for a pipeline that would not open or draw unchanged, EditError for an
        edit with guards, which a folder of weights cannot hold.
        """
        from . import saving

        saving.save(self, Path(folder), edit)
