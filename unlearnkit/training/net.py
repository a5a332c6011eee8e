"""The network of a training run: the student that is trained, the frozen teacher, and a training step.

    student   the trained weights, with gradient: one pass for all inputs, or one per input if gradients are combined
    teacher   the base model, without gradient

There is one network in memory. A pass of the student swaps the trained weights in and out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import seeds
from ..data.image_sets import DenoiserInput
from ..errors import InputError
from ..io import processes
from ..model.encoders import embedding_spread, random_vectors
from ..model.model import Model
from ..model.sampling import denoise
from .attention import AttentionRecorder

__all__ = ["CountingNet", "DenoiserInput", "Net", "Step", "mse"]


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of two tensors of one shape, a scalar."""
    return (prediction - target).square().mean()


@dataclass(frozen=True)
class Step:
    """One training step. number: from 0, warm-up included. log: further numbers for the step's line in the log."""

    number: int
    seed: int
    log: dict[str, float] = field(default_factory=dict)

    def stream(self, *labels: str | int) -> torch.Generator:
        """A generator of its own for each step and each list of labels."""
        return seeds.stream(self.seed, *labels, self.number)


class Net:
    """The network as a method's loss uses it.

    separate: each of the student's inputs has a pass of its own, so that each loss has its own graph.
    adversary: changes the first input of the student's next pass, once; that input is of the erasing side.
    """

    def __init__(self, model: Model, *, separate: bool = False) -> None:
        self.model, self.separate = model, separate
        self.adversary: Callable[[DenoiserInput], DenoiserInput] | None = None
        self._cast: Callable[[], Mapping[str, Tensor]] = dict
        self._weights: Mapping[str, Tensor] | None = None

    def begin_step(self, cast: Callable[[], Mapping[str, Tensor]] = dict) -> None:
        """Start a new step. cast: gives the trained weights in the model's dtype; called at their first use."""
        self._cast, self._weights = cast, None

    @contextmanager
    def as_student(self) -> Iterator[None]:
        """The model with the trained weights. Backward passes must run inside, for activations are recomputed."""
        if self._weights is None:
            with torch.enable_grad():
                self._weights = self._cast()
        with self.model.wearing(self._weights):
            yield

    def student(self, inputs: Sequence[DenoiserInput], *, joint: bool = False) -> list[Tensor]:
        """The student's prediction eps (n, c, h, w), fp32, for each input, with gradient.

        joint: one pass in any case, because the inputs belong to one loss.
        """
        inputs = self._attacked(inputs)
        with self.as_student():
            if self.separate and not joint:
                return [self.model.eps(one.x, one.t, one.cond) for one in inputs]
            return self._together(inputs)

    def student_recomputed(self, one: DenoiserInput, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """``loss(eps)`` of one input; the backward pass recomputes activations to save memory."""

        def of(x: Tensor) -> Tensor:
            (eps,) = self.student([replace(one, x=x)])
            return loss(eps)

        value: Tensor = checkpoint(of, one.x, use_reentrant=False)
        return value

    def student_cond(self, prompts: Sequence[str], vectors: Mapping[str, Tensor] | None = None) -> Tensor:
        """The conditioning (n, tokens, width) of prompts by the student's text encoders, with gradient to them.

        vectors: (k, width) by text encoder, in place of the embeddings of each prompt's first k tokens.
        """
        with self.as_student():
            return self.model.conditioning(prompts, vectors)

    @torch.no_grad()
    def encoded(self, prompts: Sequence[str], vectors: Mapping[str, Tensor]) -> Tensor:
        """The conditioning (n, tokens, width) by the base model's text encoders, with ``vectors`` as they are there."""
        return self.model.conditioning(prompts, vectors)

    def attack(
        self,
        rows: DenoiserInput,
        prompts: Sequence[str],
        target: Tensor,
        *,
        tokens: int,
        steps: int,
        lr: float | Mapping[str, float],
        draws: torch.Generator,
        start: Mapping[str, Tensor] | None = None,
        radius: float = 0.0,
        base: bool = False,
    ) -> dict[str, Tensor]:
        """Vectors in place of the prompts' first tokens that make the student predict ``target`` for these rows.

        Takes ``steps`` of Adam, or one step by the gradient's sign. lr: one, or one by text encoder. start: vectors to
        start from; none: random ones. radius: longest vector, in lengths of a random vector (mean square); 0: any.
        base: the base model predicts, not the student.
        Returns (tokens, width) by text encoder.
        """
        attack = {name: vector.clone() for name, vector in (start or {}).items()}
        attack = attack or random_vectors(self.model.pipe, tokens, draws)
        vectors = [vector.requires_grad_() for vector in attack.values()]
        rates = lr if isinstance(lr, Mapping) else dict.fromkeys(attack, lr)
        adam = torch.optim.Adam([{"params": [vector], "lr": rates[name]} for name, vector in attack.items()])
        spread = embedding_spread(self.model.pipe) if radius else {}
        with self.as_student():
            weights = {} if base else {name: one.detach() for name, one in (self._weights or {}).items()}
        for _ in range(steps):
            with self.model.wearing(weights):
                eps = self.model.eps(rows.x, rows.t, self.model.conditioning(prompts, attack))
                raw = torch.autograd.grad(
                    mse(eps, target), vectors, allow_unused=True, materialize_grads=True
                )
            gradients = processes.sum_gradients(dict(zip(attack, raw, strict=True)))
            for name, vector in attack.items():
                vector.grad = gradient = gradients[name]
                if steps == 1:
                    vector.data -= rates[name] * gradient.sign()
            if steps > 1:
                adam.step()
            for name, longest in spread.items():
                length = attack[name].data.norm(dim=1, keepdim=True)
                most = radius * longest * attack[name].shape[1] ** 0.5
                attack[name].data *= (most / length).clamp_max(1)
        return {name: vector.detach() for name, vector in attack.items()}

    @torch.no_grad()
    def student_sg(self, inputs: Sequence[DenoiserInput]) -> list[Tensor]:
        """sg[ε_θ]: the student's predictions as constants, in one pass."""
        with self.as_student():
            return self._together(inputs)

    @torch.no_grad()
    def teacher(
        self, inputs: Sequence[DenoiserInput], weights: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """ε_θ*: the base model's predictions for each input, in one pass.

        weights: values in place of the base model's own.
        """
        with self.model.wearing(weights or {}):
            return self._together(inputs)

    def student_attention(
        self, recorder: AttentionRecorder, inputs: Sequence[DenoiserInput], *, rows: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As ``student``, and of the first ``rows`` rows of the first input each layer's map."""
        inputs = self._attacked(inputs, maps=recorder.enabled)
        with self.as_student():
            if not self.separate:
                return self._attention(recorder, inputs, rows)
            first, maps = self._attention(recorder, inputs[:1], rows)
            return [*first, *self._together(inputs[1:])], maps

    @torch.no_grad()
    def teacher_attention(
        self, recorder: AttentionRecorder, inputs: Sequence[DenoiserInput], *, rows: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As ``teacher``, and of the first ``rows`` rows each layer's map."""
        return self._attention(recorder, inputs, rows)

    @torch.no_grad()
    def partial_denoise(
        self, noise: Tensor, cond: Tensor, null: Tensor, *, steps: int, guidance: float, stop: int
    ) -> tuple[Tensor, Tensor]:
        """x_t and t (n,) after ``stop`` of ``steps`` sampling steps of the student from noise (n, c, h, w)."""
        with self.as_student():
            return denoise(self.model, noise, cond, null, steps=steps, guidance=guidance, stop=stop)

    def _attacked(self, inputs: Sequence[DenoiserInput], *, maps: bool = False) -> Sequence[DenoiserInput]:
        """The inputs, the first of them changed by the adversary if there is one."""
        adversary, self.adversary = self.adversary, None
        if adversary is None:
            return inputs
        if maps:
            raise InputError(
                "an adversary changes the prompt, and attention maps compare its tokens one by one: set "
                "attention_weight=0 and output_weight above 0, or adversary=none"
            )
        return [adversary(inputs[0]), *inputs[1:]]

    def _together(self, inputs: Sequence[DenoiserInput]) -> list[Tensor]:
        if not inputs:
            return []
        x, t, cond = (torch.cat([getattr(one, name) for one in inputs]) for name in ("x", "t", "cond"))
        return list(torch.split(self.model.eps(x, t, cond), [len(one.t) for one in inputs]))

    def _attention(
        self, recorder: AttentionRecorder, inputs: Sequence[DenoiserInput], rows: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        x, t, cond = (torch.cat([getattr(one, name) for one in inputs]) for name in ("x", "t", "cond"))
        eps, maps = recorder.eps(x, t, cond, rows=rows)
        return list(torch.split(eps, [len(one.t) for one in inputs])), maps


class CountingNet(Net):
    """A network that computes nothing and counts rows: ``free`` without gradient, ``rows`` forward and backward.

    Each prediction is filled with another number, so that no two predictions are equal.
    """

    def __init__(self, model: Model, *, separate: bool = False) -> None:
        super().__init__(model, separate=separate)
        self.free, self.rows, self._calls = 0.0, 0.0, 0

    def student(self, inputs: Sequence[DenoiserInput], *, joint: bool = False) -> list[Tensor]:
        inputs = self._attacked(inputs)
        self.rows += sum(len(one.t) for one in inputs)
        return self._numbers(inputs)

    def student_recomputed(self, one: DenoiserInput, loss: Callable[[Tensor], Tensor]) -> Tensor:
        self.free += len(one.t)
        return super().student_recomputed(one, loss)

    def student_sg(self, inputs: Sequence[DenoiserInput]) -> list[Tensor]:
        return self.teacher(inputs)

    def student_cond(self, prompts: Sequence[str], vectors: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.model.encode([""]).expand(len(prompts), -1, -1)

    def encoded(self, prompts: Sequence[str], vectors: Mapping[str, Tensor]) -> Tensor:
        return self.student_cond(prompts)

    def attack(
        self, rows: DenoiserInput, prompts: Sequence[str], target: Tensor, *, steps: int, **how: Any
    ) -> dict[str, Tensor]:
        self.rows += steps * len(rows.t)
        return {}

    def teacher(
        self, inputs: Sequence[DenoiserInput], weights: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        self.free += sum(len(one.t) for one in inputs)
        return self._numbers(inputs)

    def student_attention(
        self, recorder: AttentionRecorder, inputs: Sequence[DenoiserInput], *, rows: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        inputs = self._attacked(inputs, maps=recorder.enabled)
        return self.student(inputs), self._maps(inputs, rows)

    def teacher_attention(
        self, recorder: AttentionRecorder, inputs: Sequence[DenoiserInput], *, rows: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        return self.teacher(inputs), self._maps(inputs, rows)

    def partial_denoise(
        self, noise: Tensor, cond: Tensor, null: Tensor, *, steps: int, guidance: float, stop: int
    ) -> tuple[Tensor, Tensor]:
        self.free += len(noise) * (steps - 1)  # two rows a sampling step, half of the steps on average
        return noise, torch.zeros(len(noise), dtype=torch.long, device=noise.device)

    def _numbers(self, inputs: Sequence[DenoiserInput]) -> list[Tensor]:
        self._calls += 1
        return [torch.full_like(one.x, float(self._calls), dtype=torch.float32) for one in inputs]

    def _maps(self, inputs: Sequence[DenoiserInput], rows: int) -> list[Tensor]:
        self._calls += 1
        tokens = self.model.text([""]).shape[1]
        return [torch.full((rows, 1, 1, tokens), 1 / (tokens + self._calls), device=inputs[0].x.device)]
