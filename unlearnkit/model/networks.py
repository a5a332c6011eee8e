"""A pipeline's networks: prompts and images to tensors, predictions, and weights. Only ``wearing`` changes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import families
from ..errors import EditError, InputError, ModelError, printable, quoted
from ..io import processes
from ..schema import check_unicode
from . import hints, restore
from .edit import Edit
from .encoders import States, encoders, soft_prefix
from .hints import Hints
from .hooks import Hook, attached
from .restore import steady
from .selection import belongs
from .weights import WeightSwap

__all__ = ["Networks", "Weights"]

Weights = Mapping[str, Tensor]
# the most images of one batch, and the most positions of all its latents: those of 1024 x 1024 pixels
MOST, POSITIONS = 32, 2**14


class Networks:
    """What ``Model`` is made of: everything but its images and its files."""

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
    def posterior(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n, c, h, w), fp32, of the latents of RGB images of the model's size."""
        pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
        with self.onload(), restore.running(self.source):
            mean, std = self.family.posterior(self.pipe, pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return mean.float(), std.float()

    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        """Latents (n, c, h, w), fp32, of RGB images of the model's size: the means of their distributions."""
        return self.posterior(images)[0]

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

    # the weights

    def weights(self, part: str = "all") -> dict[str, Tensor]:
        """The present weights of a part.

        part: of the denoiser ``xattn-kv``, ``xattn``, ``not-xattn``, ``text``, ``values`` or ``all``; ``text-encoder``
            is the layers of all text encoders, without norms and embeddings.
        Raises InputError for a part that is unknown, or that a model of this family does not have.
        """
        return self.swap.weights(belongs(self.family, encoders(self.pipe), part))

    def values(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The present weights of these full names. Raises EditError for a name that the model does not have."""
        return self.swap.values(names)

    @contextmanager
    def wearing(self, edit: Edit | Weights) -> Iterator[Self]:
        """The model with an edit applied inside the ``with`` block; the weights are restored afterwards. It nests.

        Values of another dtype or device are cast once, and gradients flow through the cast to the edit's tensors. The
        network is not copied. An edit's guards act as well. A plain mapping (``edit.weights``) is checked for names and
        shapes only. Raises EditError for an edit of another model, and for unknown names or other shapes.
        """
        weights, hooks = (edit.weights, edit.hooks) if isinstance(edit, Edit) else (edit, ())
        if isinstance(edit, Edit):
            self.check(edit)
        with self.swap.swapped(weights), attached(self.denoiser, hooks, self.weights):
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
        if part is not None:
            return self.swap.fingerprint(part)
        denoiser = self.swap.fingerprint(self.family.DENOISER)
        changed = [name for name in sorted(encoders(self.pipe)) if self.swap.replaced[name]]
        if not changed and not self.hooks:
            return denoiser
        hooks = Edit({}, hooks=tuple(self.hooks)).hash()
        text = json.dumps([denoiser, [self.swap.fingerprint(name) for name in changed], hooks])
        return hashlib.sha256(text.encode()).hexdigest()

    def encoder_fingerprints(self, edit: Edit) -> dict[str, str]:
        """The fingerprints of the text encoders that the edit changes, by component: what its fact ``fits`` says."""
        return {name: self.fingerprint(name) for name in edit.components if name in encoders(self.pipe)}

    def check(self, edit: Edit) -> None:
        """Raises EditError for an edit made from another denoiser, or from another text encoder if it changes one."""
        source = printable(str(edit.facts.get("source", "another model")))[:80]
        changed = {name for name in edit.components if name in encoders(self.pipe)}
        fits = {name: edit.facts.get("fits", {}).get(name, "") for name in sorted(changed)}
        if edit.hooks or not changed or set(edit.components) - changed:
            fits[self.family.DENOISER] = edit.facts.get("base", "")
        for name, base in fits.items():
            if not base:
                continue
            here = self.fingerprint(None if name == self.family.DENOISER else name)
            if base not in (here, *self.earlier_fingerprints):
                raise EditError(
                    f"the edit was made from {source} ({base[:12]}), not from {self.source} ({here[:12]}): load that "
                    "one, or apply edit.weights without this check"
                )

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
