"""A text-to-image pipeline as one thing with a few methods, and the one mutation there is: wearing other weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import families, seeds
from ..errors import EditError, InputError, ModelError, nearest, printable, quoted
from ..families.opening import checked_device, checked_dtype, open_pipeline, quiet
from ..families.schedules import check_steps
from ..io import processes
from ..io.files import new_folder
from ..io.reading import read_json
from ..schema import check_unicode
from . import hints, restore
from .edit import Edit
from .encoders import States, encoders, soft_prefix
from .hints import Hints
from .hooks import Hook, attached
from .restore import steady
from .weights import Slots, component

__all__ = ["TEXT_ENCODER", "Model", "Weights", "hints_of", "load", "note_of"]

Weights = Mapping[str, Tensor]
CANVAS = Path(__file__).parents[1] / "canvas" / "weights" / "pipeline"
RELATIVES = ("canvas-flow", "canvas-classes")  # in folders beside it
TEXT_ENCODER = "text-encoder"  # a part that is no denoiser's
# pictures drawn at once, and places of all their latents: those of 1024 x 1024 pixels
MOST, PLACES = 32, 2**14
FEW_STEPS = ("LCMScheduler", "TCDScheduler")  # schedulers of distilled models


@steady()
def load(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    edit: Edit | None = None,
    variant: str | None = None,
) -> Model:
    """Open a model that can be edited.

    source: ``"canvas"`` or one of its relatives, a diffusers folder, a hub id, or a single ``.safetensors`` file.
    device: a GPU if there is one, for each of several processes its own, else the CPU. dtype: float32 unless told.
    edit: one that will be worn; without dtype the model has that of the edit, else it is opened in that and then cast,
    so that the edit is known to be of this model whatever its precision.
    variant: of the weights' files, such as ``"fp16"``; none takes the plain files, or the only variant there is.
    Raises ModelError for a model that is missing, damaged or unsupported, InputError for a bad device or dtype,
    EditError for an edit made from another model.
    """
    made = edit.facts.get("dtype") if edit else None
    dtype, device = checked_dtype(dtype or made or torch.float32), checked_device(device)
    folder = folder_of(source)
    if is_canvas(source) and not folder.is_dir():
        raise ModelError(f"the weights of {source} are not installed: reinstall the package")
    place = str(folder) if folder.exists() else str(source)
    pipe = open_pipeline(place, dtype=checked_dtype(made or dtype), variant=variant).to(device)
    model = Model(pipe, source=str(source), hints=hints_of(source), variant=variant)
    if edit:
        model.check(edit)
    return model if model.dtype == dtype else model.cast(dtype)


def is_canvas(source: str | Path) -> bool:
    """Whether this names the canvas or one of its relatives, whose pictures the canvas's evaluators know."""
    return str(source) in ("canvas", *RELATIVES)


def folder_of(source: str | Path) -> Path:
    """Where the model is, if it is a folder: the canvas and its relatives are in the package."""
    if str(source) in RELATIVES:
        return CANVAS.with_name(str(source).removeprefix("canvas-"))
    return CANVAS if str(source) == "canvas" else Path(source).expanduser()


def hints_of(source: str | Path) -> Hints:
    """What the model says about itself, without opening it. Raises ModelError for hints that are wrong."""
    folder = folder_of(source)
    try:
        return hints.read(folder) if folder.is_dir() else hints.GENERAL
    except PermissionError:
        raise ModelError(f"there is no permission to read the model {str(folder)!r}: give another") from None


def note_of(source: str | Path) -> str:
    """One line for a folder that holds a distilled model and says nothing of how to draw with it; else empty."""
    folder = folder_of(source)
    files = [folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"]
    if (folder / hints.FILE).exists() or not all(file.is_file() for file in files):
        return ""
    index, scheduler = (read_json(file, what="file", kind=dict, error=ModelError) for file in files)
    kind, spacing = scheduler.get("_class_name"), scheduler.get("timestep_spacing")
    trailing = spacing == "trailing" and not scheduler.get("rescale_betas_zero_snr")
    family = next((one for one in families.FAMILIES if index.get("_class_name") in one.PIPELINES), None)
    if family is None or family.DENOISER != "unet" or not (kind in FEW_STEPS or trailing):
        return ""
    steps, guidance = family.sampling(None)
    return (
        f"{quoted(str(source))} looks distilled ({quoted(kind)}, spacing {quoted(spacing)}): without hints it is drawn "
        f"in {steps} steps with guidance {guidance:g}; if few steps suit it, write them into its {hints.FILE}: "
        "[sampling] steps = 4, guidance = 1.0"
    )


class Model:
    """A pipeline and what its family knows about it. Weights have full names: ``"unet.mid_block...weight"``.

    pipe: the diffusers pipeline, bitwise unchanged by everything here except inside ``wearing``.
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
        # names of classes, of a model that is told one of them and no words
        self.classes = self.family.classes(pipe)
        self.pipe, self.source, self.variant = pipe, source, variant
        self.hints = hints.suited(self.family.sampling(pipe), self.classes)
        if hints.tokens and "tokens" not in signature(self.family.encode).parameters:
            raise ModelError(
                f"{self.family.TITLE} cannot be told how many tokens T5 gives: take sampling.tokens out of the hints"
            )
        self.denoiser: nn.Module = getattr(pipe, self.family.DENOISER)
        first = next(self.denoiser.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.shape: tuple[int, int, int] = self.family.shape(pipe, hints.size)  # (c, h, w) of one latent
        # pictures that are drawn at once unless told
        self.batch = max(1, min(MOST, PLACES // (self.shape[1] * self.shape[2])))
        self.schedule = self.family.schedule(pipe, self.shape)
        self._slots = Slots({self.family.DENOISER: self.denoiser, **encoders(pipe)})
        self._hooks: list[Hook] = []  # that act now
        self._encode: Callable[..., Tensor] = self.family.encode
        self._told = {"tokens": hints.tokens} if hints.tokens else {}
        self._states = States(pipe)
        self._printed: tuple[str, ...] = ()  # fingerprints that it had in other dtypes

    @property
    def precision(self) -> str:
        """The dtype's name, such as ``"float32"``."""
        return str(self.dtype).removeprefix("torch.")

    @steady()
    def cast(self, dtype: torch.dtype) -> Model:
        """The model with its pipeline turned into another dtype, in place; edits made from it before still fit."""
        printed = (*self._printed, self.fingerprint())
        with quiet():
            model = Model(
                self.pipe.to(dtype=dtype), source=self.source, hints=self.hints, variant=self.variant
            )
        model._printed = printed
        return model

    def knowing(self, hints: Hints) -> Model:
        """The same pipeline with other hints, and with the prompts that it has encoded."""
        model = Model(self.pipe, source=self.source, hints=hints, variant=self.variant)
        if hints.tokens == self.hints.tokens:
            model._states = self._states
        return model

    def check(self, edit: Edit) -> None:
        """Raises EditError for an edit made from another denoiser or text encoder than it changes here."""
        source = printable(str(edit.facts.get("source", "another model")))[:80]
        own = {one for one in edit.components if one in encoders(self.pipe)}
        fits = {one: edit.facts.get("fits", {}).get(one, "") for one in sorted(own)}
        if edit.hooks or not own or set(edit.components) - own:
            fits[self.family.DENOISER] = edit.facts.get("base", "")
        for part, base in fits.items():
            here = self.fingerprint(None if part == self.family.DENOISER else part)
            if base not in ("", here, *self._printed):
                raise EditError(
                    f"the edit was made from {source} ({base[:12]}), not from "
                    f"{self.source} ({here[:12]}): load that one, or wear edit.weights without this check"
                )

    # text and pictures in

    @steady()
    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """All that the network is told of prompts, (n, rows, width), the states of their tokens first.

        Each is computed once, alone, and again when the text encoders' weights are others or were changed in place.
        The empty prompt is what the pipeline takes for none, a class its name or number.
        """
        return self._states.of(prompts, self._encoded)

    def conditioning(self, prompts: Sequence[str], vectors: Mapping[str, Tensor] | None = None) -> Tensor:
        """What ``encode`` gives, computed anew, with gradient to the text encoders' weights as worn now.

        vectors: (k, width) by text encoder, in place of the embeddings of each prompt's first k tokens.
        """
        with nullcontext() if vectors is None else soft_prefix(self.pipe, vectors):
            return torch.stack([self._encoded(prompt) for prompt in prompts])

    def _encoded(self, prompt: str) -> Tensor:
        check_unicode(prompt)
        with self._whole(), restore.running(self.source):
            return self._encode(self.pipe, prompt, self.device, **self._told)

    @steady()
    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """The states (n, tokens, width) of prompts alone, as the matrices of the part ``text`` read them."""
        return self.family.text(self.pipe, self.encode(prompts))

    def last_token(self, text: str) -> int:
        """The index of the last token of ``text`` in the states of any prompt that starts with it (0: no token)."""
        with restore.running(self.source):
            return self.family.last_token(self.pipe, text)

    def reads(self, text: str) -> None:
        """Raises InputError for a text that the text encoder would cut off, and for a class that is not known."""
        with restore.running(self.source):
            found, room = self.family.room(self.pipe, text, self.hints.tokens)
        if found > room:
            raise InputError(
                f"{quoted(text)} is {found:,} tokens long, and the text encoder of {self.source} reads {room}: "
                "use a shorter wording"
            )

    @steady()
    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        """Latents (n, c, h, w), fp32, of RGB pictures of the model's size."""
        pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
        with self._whole(), restore.running(self.source):
            return self.family.latents(self.pipe, pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).float()

    # the network

    @property
    def times(self) -> int:
        """The number of times; t runs from 0 (picture) to ``times - 1`` (noise)."""
        return self.schedule.times

    @steady()
    def noised(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Latents (n, c, h, w) with noise of the same shape mixed in for times t (n,), fp32."""
        return self.schedule.noised(latents, noise, t)

    @steady()
    def aim(self, latents: Tensor, noise: Tensor) -> Tensor:
        """What ``eps`` should be for latents with this noise: the noise; for a flow, noise less latents."""
        return self.schedule.aim(latents, noise)

    @steady()
    def clean(self, latents: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The latents without noise that a prediction as of ``eps`` implies at times t (n,), fp32."""
        return self.schedule.clean(latents, eps, t)

    @steady()
    def forward(self, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """What ``predict`` gives, computed by this process alone."""
        with restore.running(self.source):
            return self.family.predict(self.pipe, latents.to(self.dtype), self.schedule.clock(t), states)

    @steady()
    def predict(self, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The network's own output: latents (n, c, h, w), times (n,), states (n, rows, width) of ``encode``."""
        return processes.shared(self.forward, latents, t, states)

    @steady()
    def eps(self, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The prediction that losses look at, fp32: the noise, whatever the network gives; the velocity of a flow."""
        return self.schedule.prediction(self.predict(latents, t, states), latents, t)

    @steady()
    @torch.no_grad()
    def denoise(
        self, noise: Tensor, states: Tensor, null: Tensor, *, steps: int, guidance: float, stop: int
    ) -> tuple[Tensor, Tensor]:
        """``stop`` (below ``steps``) steps from noise (n, c, h, w) as DDIM or Euler: the latents, and the time (n,)."""
        check_steps(getattr(self.schedule, "ddim", self.pipe.scheduler), steps, whole=False)
        schedule, x, n = self.family.schedule(self.pipe, self.shape), noise, len(noise)
        walk = schedule.walk(steps, self.device)
        for t in walk[:stop]:
            output = self.family.guided(self.predict, x, t.expand(n), states, null, guidance)
            x = schedule.step(output, t, x)
        return x, walk[stop].expand(n)

    # pictures out

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
        """One picture for each prompt and seed, through the pipeline's own ``__call__`` and with its own scheduler.

        A seed goes to the generator as it is, so plain diffusers with ``torch.Generator().manual_seed(seed)`` draws the
        same picture, bit for bit at ``batch=1``. Other batch sizes give the same noise, but kernels that choose their
        order of summing by shape differ by about 1e-6, which may turn a single pixel by 1 of 255.
        steps, guidance: the hints' unless told. negative: the empty prompt unless told. batch: pictures at once,
        ``self.batch`` unless told.
        tick: called as ``tick(done, total)`` after each batch.
        """
        images: list[Image.Image] = []
        for part in self._draw(prompts, seeds, steps, guidance, negative, batch, "pil"):
            images += part
            if tick:
                tick(len(images), len(prompts))
        return images

    @steady()
    def sample_latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        guidance: float,
        negative: str | None = None,
        batch: int | None = None,
    ) -> Tensor:
        """The latents (n, c, h, w), fp32, of the pictures that ``sample`` would give."""
        parts = self._draw(prompts, seeds, steps, guidance, negative, batch, "latent")
        return torch.cat([part.float() for part in parts])

    def _draw(
        self,
        prompts: Sequence[str],
        numbers: Sequence[int],
        steps: int | None,
        guidance: float | None,
        negative: str | None,
        batch: int | None,
        output: str,
    ) -> Iterator[Any]:
        steps = self.hints.steps if steps is None else steps
        guidance = self.hints.guidance if guidance is None else guidance
        batch = self.batch if batch is None else batch
        if isinstance(prompts, str) or len(prompts) != len(numbers):
            raise InputError(
                f"{len(prompts)} prompts and {len(numbers)} seeds: give two lists of the same length"
            )
        if not 1 <= batch <= 2**20:
            raise InputError(f"batch {quoted(batch)} is out of range: use 1 to {2**20}")
        check_steps(self.pipe.scheduler, steps)
        how: dict[str, Any] = {"num_inference_steps": steps, "output_type": output}
        if self.hints.size:
            how |= {"height": self.hints.size, "width": self.hints.size}
        for start in range(0, len(prompts), batch):
            states = self.encode(prompts[start : start + batch])
            nothing = self.encode([negative or ""]).expand_as(states)
            generators = [seeds.plain(number) for number in numbers[start : start + batch]]
            with (
                self.frozen(),
                self._whole(),
                restore.sampling(self.pipe),
                restore.running(self.source),
            ):
                drawn = self.family.draw(self.pipe, states, nothing, guidance, generator=generators, **how)
            yield drawn

    # the weights

    def weights(self, part: str = "all") -> dict[str, Tensor]:
        """The weights of a part as worn now.

        part: of the denoiser ``xattn-kv``, ``xattn``, ``not-xattn``, ``text``, ``values`` or ``all``; ``text-encoder``
            is the layers of all text encoders, less their norms and embeddings.
        Raises InputError for a part that is unknown, or that a model of this family does not have.
        """
        parts, title = self.family.PARTS, self.family.TITLE
        if part == TEXT_ENCODER:
            if not encoders(self.pipe):
                raise InputError(f"{title} has no text encoder: it is told a class; choose another method")
            return self._slots.weights(self._in_a_layer)
        if part in self.family.LACKS:
            raise InputError(f"{title} has no part {part!r}: {self.family.LACKS[part]}")
        if part not in parts:
            raise InputError(f"part {part!r} is unknown{nearest(part, parts)}: use one of {', '.join(parts)}")
        own = self.family.DENOISER
        return self._slots.weights(lambda name: component(name) == own and self.family.belongs(part, name))

    def values(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The weights of these full names as worn now. Raises EditError for a name that the model does not have."""
        return self._slots.values(names)

    def _in_a_layer(self, name: str) -> bool:
        """Whether a weight is in a text encoder's layer, and no norm."""
        layer = any(f".{blocks}." in name for blocks in ("layers", "block"))
        return component(name) in encoders(self.pipe) and layer and "norm" not in name

    @contextmanager
    def wearing(self, edit: Edit | Weights) -> Iterator[Model]:
        """The model with other values for some weights, as they were again afterwards. It nests.

        Values of another dtype or device are cast, once, and gradients flow through the cast to what was given; no
        second copy of the network is made. Raises EditError for an edit made from another model, and for names or
        shapes that this one does not have. A plain mapping (``edit.weights``) is checked for names and shapes only.
        An edit's guards act inside as well.
        """
        weights, hooks = (edit.weights, edit.hooks) if isinstance(edit, Edit) else (edit, ())
        if isinstance(edit, Edit):
            self.check(edit)
        with self._slots.holding(weights), attached(self, hooks):
            before = self._hooks
            self._hooks = [*before, *hooks]
            try:
                yield self
            finally:
                self._hooks = before

    @steady()
    def fingerprint(self, part: str | None = None) -> str:
        """sha256 over the names, shapes and values of a component as worn now, alike in every dtype that holds them.

        part: the denoiser's or a text encoder's name. None is the denoiser, and with it what else of an edit is worn:
            guards, and text encoders that the edit changes.
        """
        if part is not None:
            return self._slots.fingerprint(part)
        printed = self._slots.fingerprint(self.family.DENOISER)
        beside = [one for one in sorted(encoders(self.pipe)) if self._slots.replaced[one]]
        if not beside and not self._hooks:
            return printed
        hooks = Edit({}, hooks=tuple(self._hooks)).hash()
        text = json.dumps([printed, [self._slots.fingerprint(one) for one in beside], hooks])
        return hashlib.sha256(text.encode()).hexdigest()

    def frozen(self) -> AbstractContextManager[None]:
        """Every network in eval mode and without gradients of its own; flags are as found afterwards."""
        return restore.frozen(self.pipe)

    def alone(self) -> AbstractContextManager[None]:
        """Text encoders and VAE off the device; for a new prompt or a picture they come back for a while."""
        return restore.beside(self.pipe, self.denoiser, torch.device("cpu"))

    def _whole(self) -> AbstractContextManager[None]:
        return restore.beside(self.pipe, self.denoiser, self.device)

    def checkpointing(
        self, on: bool = True, through: Callable[..., Any] | None = None
    ) -> AbstractContextManager[None]:
        """Activations recomputed in the backward pass instead of kept: less memory, about a third more time.

        through: called with every block and what it is given, in place of torch's own checkpoint.
        """
        return restore.checkpointing(self.denoiser, on, through)

    @steady()
    def save(self, folder: str | Path, edit: Edit | None = None) -> None:
        """Write a whole diffusers pipeline, with the edit worn, that plain diffusers loads. Whole or not at all.

        What was written is opened again, compared and drawn with before it counts. Raises InputError where ``folder``
        exists already or cannot be written, ModelError for a pipeline that would not open or draw as it is, EditError
        for an edit with guards, which no folder of weights can hold.
        """
        from . import saving

        if edit and edit.hooks:
            raise EditError(
                "a guard acts while the model runs, and a pipeline's folder holds weights alone: keep "
                "edit.safetensors, and draw with unlearnkit generate --edit"
            )

        with new_folder(Path(folder)) as partial, self.wearing(edit or {}):
            saving.write(self, partial, edit)
            saving.check(self, partial)
