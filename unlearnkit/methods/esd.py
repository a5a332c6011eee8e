"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al. 2023, arXiv 2303.07345).

The trained network θ on the prompt c is trained to predict what the frozen θ* predicts, steered away from c:

    paper       ε_θ(x_t, c, t)  <-  ε_θ*(x_t, t) - η (ε_θ*(x_t, c, t) - ε_θ*(x_t, t))
    released    ε_θ(x_t, c, t)  <-  ε_θ*(x_t, c, t) - η (ε_θ*(x_t, c, t) - ε_θ*(x_t, t))

The second is the form of the authors' newer code, and its η is the first one's plus 1. x_t comes from the trained
network itself: partial denoising with guidance under the prompt, stopped at a random step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..method import Trained
from ..parts import Losses
from ..schema import Concept
from ..settings import setting
from ..training.job import Run
from ..training.net import DenoiserInput, Net, Step, mse
from ..training.prompts import retain_concepts, texts
from ..training.settings import Trains, counted, default
from ..wording import fill

__all__ = ["ESD"]


@dataclass(frozen=True)
class Prompts:
    """Conditioning (n, tokens, width) of prompts, and without the concept; latents (n, c, h, w) if drawn."""

    cond: Tensor
    null: Tensor
    latents: Tensor | None


@dataclass(frozen=True)
class ESD(Trained[tuple[Prompts, Prompts | None]]):
    name: ClassVar = "esd"
    title: ClassVar = "Erased Stable Diffusion"
    paper: ClassVar = "Gandikota et al. 2023, arXiv 2303.07345"
    summary: ClassVar = (
        "trains the network to predict, for the concept, what it predicts without, steered away from it"
    )

    trains: Trains = default(
        "trains", "xattn", source="paper: xattn (x) for styles, not-xattn (u) for objects"
    )
    steps: int = default("steps", 1000, source="paper; newer released code: 200")
    lr: float = default("lr", 1e-5, source="paper; newer released code: 5e-5")
    batch: int = default("batch", 1, source="paper")
    eta: float = setting(
        1.0, "η, how far the target is steered away from the concept", low=0.0, source="paper"
    )
    null: Literal["empty", "rest"] = setting(
        "empty",
        "what stands for no concept: the empty prompt (or 'instead'), or the concept's prompt less its word (or with "
        "'instead' for it), so that what else it says is not steered away from",
        source="paper: empty; rest: ours",
    )
    eta_is: Literal["paper", "released"] = setting(
        "paper", "how η is meant; released = 2 is paper = 1", source="newer released code: 2, released"
    )
    start: Literal["student", "pictures"] = setting(
        "student",
        "where x_t comes from: partial denoising with the trained network, or noised pictures of the base model",
        source="paper: student; pictures is ours",
    )
    start_guidance: float = setting(3.0, "guidance of the partial denoising", low=0.0, source="paper's code")
    start_steps: int = setting(
        50, "DDIM steps of a whole denoising, of which a part is done", low=1, source="paper"
    )
    templates: bool = setting(
        False, "train on the wordings in the model's templates too", source="ours; paper: bare"
    )
    pictures: int = setting(32, "pictures of each concept for start = pictures", low=1, source="ours")
    keep: float = setting(
        0.0, "weight of the squared change on kept prompts", low=0.0, source="ours; paper: 0"
    )
    neighbours: int = counted("neighbours", 8, source="ours")
    keep_pictures: int = counted("keep_pictures", 8, source="ours")

    def data(self, run: Run) -> tuple[Prompts, Prompts | None]:
        erase = self._prompts(run, run.request.erase, self.pictures if self.start == "pictures" else 0)
        if not self.keep:
            return erase, None
        others = retain_concepts(run.model, run.request, self.neighbours)
        return erase, self._prompts(run, others, self.keep_pictures)

    def loss(self, net: Net, sets: tuple[Prompts, Prompts | None], step: Step) -> Losses:
        erase, retain = sets
        noisy, null = self._noisy(net, erase, step.stream("esd"))
        inputs = [noisy] if retain is None else [noisy, self._noisy(net, retain, step.stream("esd keep"))[0]]
        e_null, e_c, *e_retain = net.teacher([noisy.with_cond(null), *inputs])
        eps, *eps_retain = net.student(inputs)
        losses = {"erase": mse(eps, self.target(e_c, e_null))}
        for found, base in zip(eps_retain, e_retain, strict=True):
            losses["keep"] = self.keep * mse(found, base)
        return losses

    def target(self, e_c: Tensor, e_null: Tensor) -> Tensor:
        """What the student is to predict, from the teacher's predictions with the concept and without."""
        start = e_null if self.eta_is == "paper" else e_c
        return start - self.eta * (e_c - e_null)  # eq. 7

    def _noisy(self, net: Net, prompts: Prompts, draws: torch.Generator) -> tuple[DenoiserInput, Tensor]:
        """x_t under prompts drawn at random, and the conditioning without their concept."""
        model, n = net.model, self.batch
        which = torch.randint(len(prompts.cond), (n,), generator=draws)
        c, null = prompts.cond[which], prompts.null[which]
        noise = torch.randn((n, *model.shape), generator=draws).to(model.device)
        if prompts.latents is not None:
            t = torch.randint(model.times, (n,), generator=draws).to(model.device)
            return DenoiserInput(model.noised(prompts.latents[which], noise, t), t, c), null
        stop = int(torch.randint(self.start_steps, (), generator=draws))
        steps, guidance = self.start_steps, self.start_guidance
        x_t, t = net.partial_denoise(noise, c, null, steps=steps, guidance=guidance, stop=stop)
        return DenoiserInput(x_t, t, c), null

    def _prompts(self, run: Run, concepts: tuple[Concept, ...], drawn: int) -> Prompts:
        """Prompts of the concepts: ``drawn`` of each in turn with an image, or each once and without images."""
        prompts: list[str] = []
        null: list[str] = []
        groups: list[tuple[str, ...]] = []
        for concept in concepts:
            pairs = texts(concept, run.model.hints, templates=self.templates)
            pairs = tuple(pairs[place % len(pairs)] for place in range(drawn or len(pairs)))
            groups.append(tuple(fill(form, word) for form, word in pairs))
            rest = [form if self.null == "rest" else "{}" for form, _ in pairs]
            null += [" ".join(fill(form, concept.instead or "").split()) for form in rest]
            prompts += groups[-1]
        latents = run.image_groups(groups).latents if drawn else None
        return Prompts(run.encode(prompts), run.encode(null), latents)
