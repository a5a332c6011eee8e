"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al. 2023, arXiv 2303.07345).

The network θ is trained to predict, on the prompt c, what the frozen θ* predicts when steered away from c:

    ε_θ(x_t, c, t)  <-  ε_θ*(x_t, t) - η (ε_θ*(x_t, c, t) - ε_θ*(x_t, t))

The authors' newer code starts from ε_θ*(x_t, c, t) instead: its η is ours plus 1. x_t comes from the trained network:
partial denoising with guidance under the prompt, stopped at a random step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..data.image_sets import DenoiserInput, PromptSet
from ..data.prompts import retain_concepts, texts
from ..data.wording import format_prompt, target_prompt
from ..parts import Losses
from ..parts.divergence import Divergence, divergence
from ..schema import Concept
from ..settings import setting
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Trains, default

__all__ = ["ESD"]

GUIDANCE = 3.0  # of the partial denoising, as in the paper's code


@dataclass(frozen=True)
class ESD(Trained[list[PromptSet]]):
    name: ClassVar = "esd"
    title: ClassVar = "Erased Stable Diffusion"
    paper: ClassVar = "Gandikota et al. 2023, arXiv 2303.07345"
    summary: ClassVar = "The concept's prediction is steered away from what the base model predicts for it."
    TARGET_PROMPT: ClassVar = "null"

    trains: Trains = default("trains", "xattn", source="paper: xattn for styles, not-xattn for objects")
    steps: int = default("steps", 1000, source="paper; newer released code: 200")
    lr: float = default("lr", 1e-5, source="paper; newer released code: 5e-5")
    batch: int = default("batch", 1, source="paper")
    eta: float = default("eta", 1.0, source="paper")
    null: Literal["empty", "rest"] = default("null", "empty", source="paper: empty; rest: ours")
    start: Literal["student", "pictures"] = setting(
        "student",
        "source of x_t: partial denoising by the trained network, or noised images of the base model",
        source="paper: student; pictures is ours",
    )
    start_steps: int = setting(50, "DDIM steps of a full denoising", low=1, source="paper")
    templates: bool = default("templates", False, source="ours; paper: bare")
    pictures: int = default("pictures", 32, source="ours, for start = pictures")
    divergence: Divergence = default("divergence", "mse", source="paper; others: f-DMU")
    divergence_scale: float = default("divergence_scale", 1.0, source="ours; f-DMU: of the step's covariance")
    retain_weight: float = default("retain_weight", 0.0, source="ours; paper: 0")
    neighbours: int = default("neighbours", 8, source="ours")
    retain_pictures: int = default("retain_pictures", 8, source="ours")

    def data(self, run: Run) -> list[PromptSet]:
        sets = [self._prompts(run, run.request.erase, self.pictures if self.start == "pictures" else 0)]
        if self.retain_weight:
            others = retain_concepts(run.model, run.request, self.neighbours)
            sets.append(self._prompts(run, others, self.retain_pictures))
        return sets

    def loss(self, net: Net, sets: list[PromptSet], step: Step) -> Losses:
        noisy, null = self._noisy(net, sets[0], step.stream("esd"))
        inputs = [noisy, *(self._noisy(net, one, step.stream("esd keep"))[0] for one in sets[1:])]
        e_null, e_c, *e_retain = net.teacher([noisy.with_cond(null), *inputs])
        eps, *eps_retain = net.student(inputs)
        target = e_null - self.eta * (e_c - e_null)  # eq. 7
        losses = {"erase": divergence(eps, target, self.divergence, self.divergence_scale)}
        for one, base in zip(eps_retain, e_retain, strict=True):
            losses["retain"] = self.retain_weight * mse(one, base)
        return losses

    def _noisy(self, net: Net, prompts: PromptSet, draws: torch.Generator) -> tuple[DenoiserInput, Tensor]:
        """x_t under prompts drawn at random, and the conditioning without the concept."""
        model, n = net.model, self.batch
        which = torch.randint(len(prompts.cond), (n,), generator=draws)
        c, null = prompts.cond[which], prompts.null[which]
        noise = torch.randn((n, *model.shape), generator=draws).to(model.device)
        if prompts.images is not None:
            t = torch.randint(model.num_timesteps, (n,), generator=draws).to(model.device)
            return DenoiserInput(model.add_noise(prompts.images.clean(which, draws), noise, t), t, c), null
        stop = int(torch.randint(self.start_steps, (), generator=draws))
        x_t, t = net.partial_denoise(noise, c, null, steps=self.start_steps, guidance=GUIDANCE, stop=stop)
        return DenoiserInput(x_t, t, c), null

    def _prompts(self, run: Run, concepts: tuple[Concept, ...], drawn: int) -> PromptSet:
        """Prompts of the concepts: ``drawn`` of each with an image, or each prompt once without images."""
        groups, null = list[list[str]](), list[str]()
        for concept in concepts:
            pairs = texts(concept, run.model.hints, templates=self.templates, without=run.request.erased)
            pairs = tuple(pairs[place % len(pairs)] for place in range(drawn or len(pairs)))
            groups.append([format_prompt(*pair) for pair in pairs])
            whole = self.null == "rest" or concept.instead == ""
            rest = (form if whole else "{}" for form, _ in pairs)
            null += [target_prompt(form, concept.instead or "") for form in rest]
        images = run.image_groups(groups) if drawn else None
        cond = run.encode([prompt for group in groups for prompt in group])
        return PromptSet(cond, run.encode(null), images)
