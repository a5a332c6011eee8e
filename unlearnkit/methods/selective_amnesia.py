"""Selective Amnesia: A Continual Learning Approach to Forgetting ... (Heng, Soh 2023, arXiv 2305.10120).

    L = E_q(x|c_f) L_ε(x, c_f) + γ E_p(x|c_r) L_ε(x, c_r) + λ Σ_i F_i (θ_i - θ*_i)²

with L_ε the usual denoising loss. The concept c_f is trained on an anchor's images (q), retained concepts c_r on images
of the frozen θ* (p), and the penalty keeps weights with much Fisher information F_i near θ*. The last term is applied
as its gradient, 2 λ F_i (θ_i - θ*_i). The paper has λ/2, the released code λ, as here.

F is the diagonal of the empirical Fisher information of the ELBO: with g_x = ∇ mean_t L_ε(x, c_r), F = mean_x g_x².
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import seeds
from ..data.image_sets import ImageSet
from ..data.prompts import prompts_for, retain_concepts
from ..errors import InputError
from ..io import processes
from ..parts import Gradients, Losses
from ..settings import setting
from ..training.anchors import Anchored, anchored
from ..training.job import Run
from ..training.method import Trained
from ..training.net import CountingNet, Net, Step, mse
from ..training.settings import Trains, default

__all__ = ["Elastic", "SelectiveAmnesia"]


@dataclass(frozen=True)
class Elastic:
    """A Rule: the gradient of λ Σ F (θ - θ*)², added to that of the losses."""

    start: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]
    weight: float

    def regularize_grad(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        for name, gradient in gradients.items():
            way = weights[name].detach() - self.start[name].to(gradient)
            gradient.addcmul_(self.fisher[name], way, value=2 * self.weight)
        return gradients

    def project_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Nothing to correct."""


@dataclass(frozen=True)
class SelectiveAmnesia(Trained[tuple[Anchored, ImageSet | None]]):
    name: ClassVar = "selective_amnesia"
    title: ClassVar = "Selective Amnesia"
    paper: ClassVar = "Heng, Soh 2023, arXiv 2305.10120"
    summary: ClassVar = "The concept learns other images; replay and Fisher information protect the rest."

    trains: Trains = default("trains", "all", source="released code for celebrities; nudity: not-xattn")
    steps: int = default("steps", 12_500, source="released code: 200 epochs, taken as of 1000 pictures by 16")
    lr: float = default("lr", 1e-5, source="released code")
    batch: int = default("batch", 16, source="released code: 4 on each of four GPUs")
    retain_weight: float = default("retain_weight", 1.0, source="paper: γ")
    elastic: float = setting(
        50.0, "λ, weight of the elastic penalty by Fisher information", low=0.0, source="released code"
    )
    fisher_pictures: int = setting(100, "images for the Fisher information", low=1, source="ours")
    fisher_times: int = setting(20, "timesteps per image, each with its own noise", low=1, source="ours")
    pictures: int = default("pictures", 1000, source="released code's example")
    neighbours: int = default("neighbours", 8, source="ours")
    retain_pictures: int = default("retain_pictures", 50, source="ours")

    @property
    def state_bytes(self) -> int:
        """With the Fisher information of every weight."""
        return super().state_bytes + 4 * bool(self.elastic)

    @property
    def low_rank(self) -> bool:
        """Whether low-rank updates can be trained: the elastic penalty needs the weights themselves."""
        return super().low_rank and not self.elastic

    @property
    def retains(self) -> bool:
        """The Fisher information is of what is kept, too."""
        return bool(self.retain_weight or self.elastic)

    def check(self, losses: Sequence[str]) -> None:
        super().check(losses)
        if self.elastic and self.trains == "lora":
            raise InputError(
                "the elastic penalty constrains the weights themselves, and trains=lora trains factors of them: "
                "choose elastic=0, or trains=xattn"
            )

    def data(self, run: Run) -> tuple[Anchored, ImageSet | None]:
        needed = self.retain_weight or self.elastic
        others = retain_concepts(run.model, run.request, self.neighbours) if needed else ()
        anchors = anchored(run, self.pictures)
        if not others:
            return anchors, None
        groups = [prompts_for(run.model, run.request, concept, self.retain_pictures) for concept in others]
        keep = run.image_groups(groups, title="pictures to keep")
        if self.elastic:
            run.rules.append(Elastic(run.model.weights(self.part), self.fisher(run, keep), self.elastic))
        return anchors, keep if self.retain_weight else None

    def loss(self, net: Net, sets: tuple[Anchored, ImageSet | None], step: Step) -> Losses:
        anchors, keep = sets
        x = anchors.images.batch(self.batch, step.stream("selective amnesia"))
        inputs, targets = [x.input.with_cond(anchors.concept_cond[x.which])], [x.noise]
        if keep is not None:
            other = keep.batch(self.batch, step.stream("selective amnesia keep"))
            inputs.append(other.input)
            targets.append(other.noise)
        eps, *eps_keep = net.student(inputs)
        losses = {"erase": mse(eps, targets[0])}
        for found, noise in zip(eps_keep, targets[1:], strict=True):
            losses["retain"] = self.retain_weight * mse(found, noise)
        return losses

    def fisher(self, run: Run, images: ImageSet) -> dict[str, Tensor]:
        """F for every weight of the part, fp32: a pass forward and backward for each image, in turn."""
        model, net, count, n = run.model, run.net, self.fisher_pictures, self.fisher_times
        if isinstance(net, CountingNet):
            net.rows += count * n
            return {}
        copies = {name: weight.detach().float().clone() for name, weight in model.weights(self.part).items()}
        total = {name: torch.zeros_like(copy) for name, copy in copies.items()}
        for copy in copies.values():
            copy.requires_grad_()
        net.begin_step(lambda: copies)
        with model.frozen(), model.checkpointing(self.checkpointing), torch.enable_grad():
            for number in range(count):
                which = torch.full((n,), number * len(images) // count)
                x = images.noisy_batch(which, seeds.stream(run.seed, "fisher", number))
                loss = mse(net.student([x.input])[0], x.noise)
                with net.as_student():
                    gradients = torch.autograd.grad(loss, list(copies.values()), materialize_grads=True)
                for name, gradient in processes.sum_gradients(
                    dict(zip(copies, gradients, strict=True))
                ).items():
                    total[name].addcmul_(gradient, gradient, value=1 / count)
                run.progress("Fisher information", number + 1, count)
        net.begin_step()
        return total
