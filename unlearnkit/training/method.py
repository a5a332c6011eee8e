"""A method is one dataclass: its settings, its data and its loss; or its settings and a closed form.

@dataclass(frozen=True)
class ESD(Trained[Sets]):
    name, title, paper, summary = ...
    eta: float = setting(1.0, ...)

    def data(self, run) -> Sets: ...               the training data, drawn once; a dry run only counts it
    def loss(self, net, sets, step) -> Losses: ... one step's named losses, in the paper's symbols
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from .. import seeds
from ..errors import InputError
from ..io import tensors
from ..model.hooks import Hook
from ..model.model import Model
from ..parts import Combine, Losses, erasing, lora
from ..schema import Concept, Request
from .adversary import Adversary, adversary_of
from .anchors import target_word
from .checks import check
from .components import check_rules, combine_of, convergence_of, mask_of, rules_of, stop_of
from .converged import Convergence
from .descend import Objective, constant, descend, onecycle
from .job import Run
from .net import CountingNet, Net, Step
from .settings import Training
from .state import CHECKPOINT

__all__ = ["Guard", "Method", "Plan", "Trained"]

D = TypeVar("D")
STAGES = "stages.safetensors"


@dataclass(frozen=True)
class Plan:
    """What a run will do, counted by a dry run.

    part: the part of the model that changes. tensors, weights: numbers of changed tensors and of their entries.
    steps, batch: optimiser steps and images per step (0 steps for a closed form).
    passes: rows through the network per step, (without gradient, forward and backward), means over all steps.
    sampled_images: images that the base model draws first, those in the cache included.
    """

    part: str
    tensors: int
    weights: int
    steps: int
    passes: tuple[float, float]
    batch: int
    sampled_images: int


class Method(Protocol):
    """One paper's method. An instance is its settings."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    INSTEAD: ClassVar[Mapping[str, str]]  # by kind, what takes a concept's place unless the request says
    REPLACES: ClassVar[bool]  # whether a concept's ``instead`` means anything to it

    @property
    def retains(self) -> bool:
        """Whether these settings look at the concepts that the request keeps."""

    def solve(self, run: Run) -> dict[str, Tensor]:
        """The new weights by name, fp32 on the CPU."""

    def plan(self, model: Model, request: Request) -> Plan:
        """The plan of ``solve``. Raises InputError for what ``solve`` would refuse."""


class Guard:
    """A method that changes no weight: its guards act at inference."""

    PART: ClassVar[str] = "values"
    INSTEAD: ClassVar[Mapping[str, str]] = {}
    REPLACES: ClassVar[bool] = False
    retains = False

    def hooks(self, run: Run) -> tuple[Hook, ...]:
        """The guards. Raises InputError for an unsuitable request."""
        raise NotImplementedError

    def solve(self, run: Run) -> dict[str, Tensor]:
        """No weights."""
        return {}

    def plan(self, model: Model, request: Request) -> Plan:
        """No step, no pass, no weight. Raises InputError for a model that lacks the part."""
        model.weights(self.PART)
        return Plan(self.PART, 0, 0, 0, (0.0, 0.0), 0, 0)


@dataclass(frozen=True)
class Trained(Training, Generic[D]):
    """A method that trains, with the settings of ``Training`` and its own."""

    def data(self, run: Run) -> D:
        """The training data, drawn by the base model. With ``run.counting`` nothing is drawn."""
        raise NotImplementedError

    def loss(self, net: Net, data: D, step: Step) -> Losses:
        """Named losses of one step, already weighted. Names of erasing losses start with ``erase``."""
        raise NotImplementedError

    def saliency(self, net: Net, data: D, step: Step) -> Losses:
        """The losses of a mask's warm-up (default: the erasing losses)."""
        return {name: loss for name, loss in self.loss(net, data, step).items() if erasing(name)}

    def place(self, model: Model, request: Request, concept: Concept) -> str | None:
        """What is predicted in the concept's place: a word, "" for none (default), None for the empty prompt."""
        return target_word(self, model, request, concept)

    def stages(self, request: Request) -> Sequence[tuple[Trained[D], Request]]:
        """Successive training stages, each with its settings and request (default: one stage)."""
        return [(self, request)]

    def with_earlier(self, data: D, earlier: Sequence[D]) -> D:
        """The data of a stage, given the data of the stages before it."""
        return data

    def check(self, losses: Sequence[str]) -> None:
        """Raise InputError for settings that do not fit together, or do not fit losses of these names."""
        check(self, losses=losses)

    @property
    def critic_warmup(self) -> int:
        """Number of first steps in which only the method's critic is trained and ``loss`` returns no losses."""
        return 0

    @property
    def combiner(self) -> Combine | None:
        """The method's own way to combine gradients, instead of the setting ``combine``."""
        return None

    def solve(self, run: Run) -> dict[str, Tensor]:
        """The trained weights. A killed run resumes from its checkpoint, in its stage."""
        self.plan(run.model, run.request)  # refuses unusable settings before an image is drawn
        stages = self.stages(run.request)
        runs = [
            replace(
                run,
                request=part,
                full=run.request,
                net=Net(run.model, separate=method.separate),
                rules=[],
                reencode=method.reencode,
            )
            for method, part in stages
        ]
        with run.contexts:
            sets = [one.data(own) for (one, _), own in zip(stages, runs, strict=True)]
            panels = [convergence_of(one, own, one.place) for (one, _), own in zip(stages, runs, strict=True)]
            if len(stages) == 1:
                return _train(stages[0][0], runs[0], stages[0][0].with_earlier(sets[0], []), panels[0])
            weights, done = _finished(run)
            for stage in range(done, len(stages)):
                one, own = stages[stage][0], runs[stage]
                folder = run.job.folder and run.job.folder / f"stage-{stage + 1}"
                own.job, own.seed = replace(run.job, folder=folder), seeds.derive(run.seed, "stage", stage)
                with run.model.wearing(weights):
                    weights = _train(one, own, one.with_earlier(sets[stage], sets[:stage]), panels[stage])
                if run.job.folder and folder:
                    facts = {"identity": run.job.identity, "done": stage + 1, "stopped": run.stopped}
                    tensors.write(run.job.folder / STAGES, weights, facts)
                    (folder / CHECKPOINT).unlink(missing_ok=True)
            return weights

    def plan(self, model: Model, request: Request) -> Plan:
        """The plan of ``solve``: ``data`` and ``loss`` run once on a network that only counts."""
        steps, free, rows, images = 0, 0.0, 0.0, 0
        earlier: list[D] = []
        for one, part in self.stages(request):
            net = CountingNet(model, separate=one.separate)
            run = Run(model, part, net, full=request, reencode=one.reencode)
            with run.contexts, torch.enable_grad():
                earlier.append(one.data(run))
                sets = one.with_earlier(earlier[-1], earlier[:-1])
                panel = convergence_of(one, run, one.place)
                warmup = one.mask_warmup if one.mask != "none" else 0
                adversary = adversary_of(model, part, one)
                before = one.critic_warmup + warmup
                for count, first, loss in (
                    (one.critic_warmup, 0, one.loss),
                    (warmup, one.critic_warmup, one.saliency),
                    (one.most_steps, before, one.loss),
                ):
                    once = net.free, net.rows
                    with _attacking(net, adversary if first == before else None, Step(first, 0)):
                        losses = loss(net, sets, Step(first, 0)) if count or first == before else {}
                    own = net.free - once[0], net.rows - once[1]
                    net.free, net.rows = (old + count * new for old, new in zip(once, own, strict=True))
                one.check(list(losses))
                check_rules(model, one)
                net.free += panel.panel.rows * (2 + panel.readings(one.most_steps)) if panel else 0
            steps, images = steps + before + one.most_steps, images + run.sampled
            free, rows = free + net.free, rows + net.rows
        weights = model.weights(self.part)
        if self.trains == "lora":
            weights = lora.matrices(weights)
        return Plan(
            part=self.part,
            tensors=len(weights),
            weights=sum(weight.numel() for weight in weights.values()),
            steps=steps,
            passes=(free / max(1, steps), rows / max(1, steps)),
            batch=self.batch,
            sampled_images=images,
        )


def _train(method: Trained[D], run: Run, sets: D, panel: Convergence | None) -> dict[str, Tensor]:
    """Run the training loop on a method's loss, with the parts that its settings name."""
    model, request, job = run.model, run.request, run.job
    extra, adversary = job.auxiliary, adversary_of(model, request, method)
    if extra and extra.rules and method.trains == "lora":
        raise InputError(
            "trains=lora trains factors, which no rule of a chain can constrain: choose another part"
        )

    def loss(net: Net, step: Step) -> Losses:
        with _attacking(net, adversary if step.number >= method.critic_warmup else None, step):
            losses = method.loss(net, sets, step)
        return (
            {**losses, **extra.losses(net, step)} if extra and step.number >= method.critic_warmup else losses
        )

    weights = descend(
        run.net,
        method.part,
        Objective(
            loss,
            saliency=lambda net, step: method.saliency(net, sets, step),
            state=run.state,
            adversary=adversary,
            critic_warmup=method.critic_warmup,
            panel=panel,
        ),
        steps=method.most_steps,
        lr=method.lr,
        job=replace(job, stop=stop_of(model, request, method) or job.stop),
        schedule=onecycle if method.schedule == "onecycle" else constant,
        checkpointing=method.checkpointing,
        combine=method.combiner or combine_of(method, run.seed),
        mask=mask_of(model, method),
        rules=[*run.rules, *rules_of(model, request, method), *(extra.rules if extra else ())],
        rank=method.updates,
        seed=run.seed,
    )
    if panel:
        if not panel.over and panel.done < method.most_steps:
            with run.model.wearing(weights):
                panel.read(method.most_steps)
        run.stopped.append(panel.facts(method.most_steps))
    return weights


@contextmanager
def _attacking(net: Net, adversary: Adversary | None, step: Step) -> Iterator[None]:
    """Inside, the adversary changes the erasing rows of the student's first pass."""
    if adversary:
        adversary.attach(net, step)
    try:
        yield
    finally:
        net.adversary = None


def _finished(run: Run) -> tuple[dict[str, Any], int]:
    """The weights after the last finished stage, and the number of finished stages."""
    job = run.job
    if job.folder is None or not (job.folder / STAGES).exists():
        return {}, 0
    weights, facts = tensors.read(job.folder / STAGES)
    if facts.get("identity") != job.identity:
        raise InputError(
            f"{str(job.folder)!r} has stages of a run with other settings: choose another folder"
        )
    run.stopped += facts.get("stopped", [])
    return weights, facts["done"]
