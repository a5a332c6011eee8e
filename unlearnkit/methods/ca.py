"""CA: Ablating Concepts in Text-to-Image Diffusion Models (Kumari et al. 2023, arXiv 2303.13516).

x is an image of an anchor c (for "grumpy cat": "cat"), x_t the image with noise ε, c* the anchor's prompt with the
concept in its place:

    model    L = E ||sg[ε_θ*(x_t, c, t)] - ε_θ(x_t, c*, t)||²
    noise    L = E ||ε - ε_θ(x_t, c*, t)||²

and, where names overlap, also the usual denoising loss on (x, c). θ* is the pretrained network, as in the paper's
derivation; the released code uses the trained one (teacher = student).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..data.image_sets import ImageSet
from ..parts import Losses
from ..parts.divergence import Divergence, divergence
from ..settings import setting
from ..training.anchors import Anchored, anchored, retained
from ..training.attention import detach_bos
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import RetainTarget, Trains, default

__all__ = ["CA"]


@dataclass(frozen=True)
class CA(Trained[tuple[Anchored, ImageSet | None]]):
    name: ClassVar = "ca"
    title: ClassVar = "Concept Ablation"
    paper: ClassVar = "Kumari et al. 2023, arXiv 2303.13516"
    summary: ClassVar = "The concept's prediction becomes that of an anchor, on the anchor's images."
    TARGET_PROMPT: ClassVar = "anchor"

    trains: Trains = default("trains", "xattn-kv", source="paper")
    steps: int = default("steps", 100, source="released code, on two GPUs with 4 pictures each")
    lr: float = default("lr", 1.6e-5, source="released code: 2e-6 for each of 8 pictures a step")
    batch: int = default("batch", 8, source="released code: 4 on each of two GPUs")
    target: Literal["model", "noise"] = setting(
        "model",
        "target for the concept: the anchor's prediction, or the true noise",
        source="paper",
    )
    teacher: Literal["frozen", "student"] = default(
        "teacher", "frozen", source="frozen: paper's derivation; student: released code"
    )
    divergence: Divergence = default("divergence", "mse", source="paper; others: f-DMU")
    divergence_scale: float = default("divergence_scale", 1.0, source="ours; f-DMU: of the step's covariance")
    retain_weight: float = default(
        "retain_weight", 0.0, source="paper: only where names overlap; 0.2 in the released code"
    )
    retain_target: RetainTarget = default("retain_target", "noise", source="released code")
    prompt_dropout: float = default("prompt_dropout", 0.0, source="ours; paper: none")
    neighbours: int = default("neighbours", 0, source="released code: the anchors' pictures alone")
    pictures: int = default("pictures", 1000, source="released code, 200 prompts with 5 each")
    grammar: str = default("grammar", "", source="ours; released code: 200 captions")

    def data(self, run: Run) -> tuple[Anchored, ImageSet | None]:
        run.enter(detach_bos(run.model))
        anchors = anchored(run, self.pictures, grammar=self.grammar)
        if not self.retain_weight:
            return anchors, None
        return anchors, retained(
            run, anchors, self.pictures, nearest=self.neighbours, dropout=self.prompt_dropout
        )

    def loss(self, net: Net, sets: tuple[Anchored, ImageSet | None], step: Step) -> Losses:
        anchors, retain = sets
        x = anchors.images.batch(self.batch, step.stream("ca"))
        inputs, target = [x.input.with_cond(anchors.concept_cond[x.which])], x.noise
        if self.target == "model":
            predict = net.student_sg if self.teacher == "student" else net.teacher
            (target,) = predict([x.input])
        retain_targets = []
        if retain is not None:
            other = retain.batch(self.batch, step.stream("ca keep"))
            inputs.append(other.input)
            retain_targets = net.teacher([other.input]) if self.retain_target == "teacher" else [other.noise]
        eps, *eps_retain = net.student(inputs)
        # eq. 6 (model) or eq. 7 (noise)
        losses = {"erase": divergence(eps, target, self.divergence, self.divergence_scale)}
        for one, base in zip(eps_retain, retain_targets, strict=True):
            losses["retain"] = self.retain_weight * mse(one, base)
        return losses
