"""STEREO: search for what brings the concept back, then erase it all once (Srivatsan et al. 2025, arXiv 2408.16807).

Search, in rounds: the network θ' is trained as in ESD on the concept's prompts and on all vectors found so far; then
textual inversion finds a vector v_k, in place of a prompt, with which θ' draws the concept's pictures again. After it
θ' is thrown away. Erase once, from the base θ* on, with p any of the concept's prompts and vectors:

    ε_θ(x_t, p)  <-  ε* + (s - 1) mean over a [ε*(a) - ε*] - (s + 1) mean over p [ε*(p) - ε*]

where ε* is short for ε_θ*(x_t, ·), without a prompt if none stands there, and a are prompts of retained concepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..data.image_sets import ImageSet
from ..data.prompts import prompts_for, retain_concepts
from ..errors import InputError
from ..io import tensors
from ..model.encoders import encoders, placeholder
from ..parts import Losses
from ..settings import setting
from ..training.descend import Objective, descend
from ..training.job import Job, Run
from ..training.method import Trained
from ..training.net import CountingNet, Net, Step, mse
from ..training.settings import Trains, default

__all__ = ["STEREO"]

CHUNK = 10  # steps of Adam of the inversion on each batch
FILE = "search.safetensors"  # in the run's folder: θ' and the vectors, after each round


@dataclass
class Sets:
    """The concept's images, and conditioning (n, tokens, width): of its prompts, of retained ones, of the empty one.

    found: the conditioning (1, tokens, width) of the vectors of each round.
    """

    images: ImageSet
    prompts: Tensor
    anchors: Tensor
    null: Tensor
    found: list[Tensor] = field(default_factory=list)

    def erased(self, draws: torch.Generator) -> Tensor:
        """What is erased: one of the concept's prompts at random, and what was found (1 + rounds, tokens, width)."""
        place = torch.randint(len(self.prompts), (1,), generator=draws)
        return torch.cat([self.prompts[place], *self.found])


@dataclass(frozen=True)
class STEREO(Trained[Sets]):
    name: ClassVar = "stereo"
    title: ClassVar = "STEREO"
    paper: ClassVar = "Srivatsan et al. 2025, arXiv 2408.16807"
    summary: ClassVar = "A search for vectors that bring the concept back, then one erasure of them all."
    REPLACES: ClassVar = False

    trains: Trains = default("trains", "not-xattn", source="a reimplementation")
    steps: int = default("steps", 200, source="a reimplementation")
    lr: float = default("lr", 2e-5, source="a reimplementation")
    batch: int = default("batch", 1, source="as ESD")
    strength: float = setting(2.0, "s, how far the target is steered", low=0.0, source="a reimplementation")
    anchors: int = setting(4, "retained prompts per step", low=1, high=64, source="ours")
    search_rounds: int = setting(4, "rounds of the search", low=0, high=64, source="a reimplementation")
    search_steps: int = setting(200, "training steps of each round", low=1, source="a reimplementation")
    search_lr: float = setting(5e-6, "learning rate of the search", low=0.0, source="a reimplementation")
    inversion_steps: int = setting(3000, "steps of each inversion", low=1, source="a reimplementation")
    inversion_lr: float = setting(
        5e-3, "learning rate of the inversions", low=0.0, source="a reimplementation"
    )
    inversion_vectors: int = setting(1, "vectors of each inversion", low=1, high=16, source="paper")
    eta: float = default("eta", 1.0, source="ESD, in the search")
    pictures: int = default("pictures", 32, source="ours")
    neighbours: int = default("neighbours", 8, source="ours; paper: benign contexts")

    def solve(self, run: Run) -> dict[str, Tensor]:
        weights = super().solve(run)
        if run.job.folder:
            (run.job.folder / FILE).unlink(missing_ok=True)
        return weights

    def data(self, run: Run) -> Sets:
        model, concepts = run.model, run.request.erase
        if not encoders(model.pipe):
            raise InputError(
                f"stereo learns vectors in place of words, and {model.source} reads none: choose another method"
            )
        erased = [prompts_for(model, run.request, one, self.pictures) for one in concepts]
        others = retain_concepts(model, run.request, self.neighbours)
        benign = [prompt for one in others for prompt in prompts_for(model, run.request, one, 4)]
        unique = list(dict.fromkeys(prompt for prompts in erased for prompt in prompts))
        images = run.image_groups(erased, title="pictures to erase")
        sets = Sets(images, run.encode(unique), run.encode(benign), run.encode([""]))
        self._search(run, sets)
        return sets

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        draws = step.stream("stereo")
        x = sets.images.batch(self.batch, draws).input
        targets = sets.erased(draws)
        p = torch.randint(len(targets), (self.batch,), generator=draws)
        a = torch.randint(len(sets.anchors), (self.anchors,), generator=draws)
        groups = [sets.null, *(one[None] for one in (*sets.anchors[a], *targets))]
        e_null, *others = net.teacher([x.with_cond(cond) for cond in groups])
        e_a = torch.stack(others[: self.anchors]).mean(dim=0) - e_null
        e_p = torch.stack(others[self.anchors :]).mean(dim=0) - e_null
        (eps,) = net.student([x.with_cond(targets[p])])
        return {"erase": mse(eps, e_null + (self.strength - 1) * e_a - (self.strength + 1) * e_p)}

    def esd(self, net: Net, sets: Sets, step: Step, base: Mapping[str, Tensor]) -> Losses:
        """The loss of the search: ESD's, on one of the prompts and vectors. base: the teacher's weights."""
        draws = step.stream("stereo search")
        x = sets.images.batch(self.batch, draws).input
        targets = sets.erased(draws)
        own = x.with_cond(targets[torch.randint(len(targets), (self.batch,), generator=draws)])
        e_null, e_p = net.teacher([x.with_cond(sets.null), own], base)
        (eps,) = net.student([own])
        return {"erase": mse(eps, e_null - self.eta * (e_p - e_null))}

    def _search(self, run: Run, sets: Sets) -> None:
        """Add what each round finds to ``sets``. A killed search goes on after its last round."""
        if isinstance(run.net, CountingNet):
            run.net.free += self.search_rounds * self.search_steps * 2 * self.batch
            run.net.rows += self.search_rounds * (self.search_steps + self.inversion_steps) * self.batch
            sets.found = [run.encode([""])] * self.search_rounds
            return
        path = run.job.folder and run.job.folder / FILE
        weights, word = dict[str, Tensor](), placeholder(run.model.pipe, self.inversion_vectors)
        finished: dict[str, Tensor] = {}
        saved, facts = tensors.read(path) if path and path.exists() else ({}, {})
        done = facts.get("done", 0) if facts.get("identity") == run.job.identity else 0
        for number in range(self.search_rounds):
            if number < done:
                vectors = {name: saved[f"vector/{number}/{name}"] for name in encoders(run.model.pipe)}
                weights = {name[7:]: one for name, one in saved.items() if name.startswith("weight/")}
            else:
                weights = self._round(run, sets, weights, number)
                with run.model.wearing(weights):
                    vectors = self._inversion(run, sets, word, number)
            sets.found.append(run.net.encoded([word], vectors))
            finished |= {f"vector/{number}/{name}": vector.cpu() for name, vector in vectors.items()}
            if path and number >= done:
                path.parent.mkdir(parents=True, exist_ok=True)
                now = {f"weight/{name}": one for name, one in weights.items()}
                tensors.write(path, finished | now, {"identity": run.job.identity, "done": number + 1})

    def _round(self, run: Run, sets: Sets, weights: dict[str, Tensor], number: int) -> dict[str, Tensor]:
        """θ' after a round's training."""
        base = {name: weight.detach().clone() for name, weight in run.model.weights(self.part).items()}
        with run.model.wearing(weights):
            return descend(
                Net(run.model, separate=self.separate),
                self.part,
                Objective(lambda net, step: self.esd(net, sets, step, base)),
                steps=self.search_steps,
                lr=self.search_lr,
                job=Job(progress=lambda _, done, total: run.progress(f"search {number + 1}", done, total)),
                checkpointing=self.checkpointing,
                rank=self.updates,
                seed=run.seed + number,
            )

    def _inversion(self, run: Run, sets: Sets, word: str, number: int) -> dict[str, Tensor]:
        """A vector with which θ', which the model has now, predicts the noise on pictures of the concept."""
        vectors: dict[str, Tensor] = {}
        with run.model.frozen():
            for done in range(0, self.inversion_steps, CHUNK):
                draws = run.stream("stereo inversion", number, done)
                x = sets.images.batch(self.batch, draws)
                vectors = run.net.attack(
                    *(x.input, [word] * self.batch, x.noise),
                    tokens=self.inversion_vectors,
                    steps=max(2, min(CHUNK, self.inversion_steps - done)),
                    lr=self.inversion_lr,
                    draws=draws,
                    start=vectors,
                    base=True,
                )
                run.progress(f"inversion {number + 1}", done + CHUNK, self.inversion_steps)
        return vectors
