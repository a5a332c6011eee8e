"""CASteer, baked into the weights (Gaintseva et al. 2025, arXiv 2503.09630).

For each layer of cross-attention, with o(x, p) its output for picture x and prompt p, over pairs of prompts with the
concept and without it, patches and times:

    s = mean of o(x, with) - mean of o(x', without), at length 1        W' = (I - β s sᵀ) W

W is the layer's last matrix. Of several concepts, s becomes an orthonormal basis S of all of them, and s sᵀ is S Sᵀ.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..data.image_sets import ImageSet
from ..data.wording import format_prompt, target_prompt
from ..errors import InputError
from ..model.model import Model
from ..schema import Request
from ..settings import setting
from ..training.anchors import templates_for
from ..training.closed_form import ClosedForm
from ..training.job import Run
from ..training.method import Plan
from ..training.net import CountingNet
from ..training.settings import default

__all__ = ["CASteer"]

ROWS = 8  # of one pass


@dataclass(frozen=True)
class CASteer(ClosedForm):
    PART: ClassVar = "outputs"
    name: ClassVar = "casteer"
    title: ClassVar = "CASteer"
    paper: ClassVar = "Gaintseva et al. 2025, arXiv 2503.09630"
    summary: ClassVar = "The concept's direction is removed from what every layer of cross-attention adds."
    RETAINS: ClassVar = False

    beta: float = setting(1.0, "β: 1 removes the direction, 2 mirrors it", low=0.0, high=10.0, source="paper")
    pictures: int = default("pictures", 50, source="paper, objects; abstract concepts: 196")
    times: int = setting(10, "times to which each picture is noised", low=1, high=1000, source="ours")

    def solved(self, run: Run) -> dict[str, Tensor]:
        """The new output matrices. Raises InputError for a concept that moves no layer."""
        found: dict[str, list[Tensor]] = {}
        for number in range(len(run.request.erase)):
            draws = run.stream("casteer", number)
            for name, s in directions(run.model, *self.pairs(run, number), self.times, draws).items():
                found.setdefault(name, []).append(s)
            run.progress("finding directions", number + 1, len(run.request.erase))
        return self.change(run, lambda name, w: project_out(w, torch.stack(found[name], dim=1), self.beta))

    def pairs(self, run: Run, number: int) -> tuple[ImageSet, ImageSet]:
        """Pictures of the prompts with a concept, and of the same prompts without it."""
        concept = run.request.erase[number]
        pairs = templates_for(run.model, run.request, concept, self.pictures)
        prompts = [format_prompt(form, word) for form, word in pairs]
        others = [target_prompt(form, concept.instead or "") for form, _ in pairs]
        return run.images(prompts, title="pictures of concepts"), run.images(others, title="pictures without")

    def plan(self, model: Model, request: Request) -> Plan:
        """The plan of ``solve``. Its pictures are drawn; the passes that read them are not counted."""
        found, run = super().plan(model, request), Run(model, request, CountingNet(model))
        for number in range(len(request.erase)):
            self.pairs(run, number)
        return replace(found, sampled_images=run.sampled)


def project_out(w: Tensor, s: Tensor, beta: float) -> Tensor:
    """(I - β S Sᵀ) W for W (rows, width) and S an orthonormal basis of directions s (rows, n)."""
    u, size, _ = torch.linalg.svd(s, full_matrices=False)
    basis = u[:, size > 1e-6 * size[0]]
    new: Tensor = w - beta * basis @ (basis.T @ w)
    return new


@torch.no_grad()
def directions(
    model: Model, shown: ImageSet, without: ImageSet, times: int, draws: torch.Generator
) -> dict[str, Tensor]:
    """s (rows,), float64, by the name of each output matrix. The n-th pictures of both sets get the same noise."""
    totals: dict[str, list[Tensor]] = {name: [] for name in model.weights(CASteer.PART)}
    noise = torch.randn(shown.latents.shape, generator=draws).to(model.device)
    with ExitStack() as stack:
        stack.enter_context(model.frozen())
        for name, sums in totals.items():
            layer = model.denoiser.get_submodule(name.rpartition(".")[0].partition(".")[2])
            hook = layer.register_forward_hook(
                lambda _, __, output, sums=sums: sums.append(output.double().flatten(0, -2).sum(0).cpu())
            )
            stack.callback(hook.remove)
        for one in (shown, without):
            for share in range(times):
                t = torch.full((len(noise),), int((share + 0.5) / times * model.num_timesteps))
                x = model.add_noise(one.latents, noise, t := t.to(model.device))
                for rows in torch.split(torch.arange(len(noise)), ROWS):
                    model.forward(x[rows], t[rows], one.cond[one.prompt_index[rows]])
    both = {name: torch.stack(sums).view(2, len(sums) // 2, -1).sum(1) for name, sums in totals.items()}
    found = {name: own - other for name, (own, other) in both.items()}
    if not all(one.norm() > 0 for one in found.values()):
        raise InputError("the concept moves no layer of cross-attention: its prompts are as without it")
    return {name: one / one.norm() for name, one in found.items()}
