"""How far erasing has come, by the model's own predictions, on prompts and pictures that no loss sees.

The base model ε* draws pictures of held-out sentences f with the concept c, and each is noised to several times t. With
f(o) the sentence that gives a method's target, and d the way there,

    d(f)    = ε*(x_t, f(o)) - ε*(x_t, f(c))
    come(f) = ⟨ε_θ(x_t, f(c)) - ε*(x_t, f(c)), d⟩ / ⟨d, d⟩      0: the base model, 1: the target

each over all times. A method without a target raises the error e = |ε - noise|² instead: its f(o) leaves the concept
out, and

    come(f) = (e_θ(f(c)) - e*(f(c))) / (e*(f(o)) - e*(f(c)))    1: the concept's word no longer helps

The slowest sentence counts. Of retained words k the same panel says what moved:

    moved   = Σ |ε_θ(x_t, f(k)) - ε*(x_t, f(k))|² / Σ |ε*(x_t, f()) - ε*(x_t, f(k))|²

0 at the base model; 1 where retained words are predicted as if they were left out. No classifier is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import seeds
from ..data.grammar import forms, read
from ..data.prompts import neighbours, unerased
from ..data.wording import format_prompt, target_prompt
from ..errors import InputError
from ..schema import Concept
from .job import Run

__all__ = ["Panel", "Reading"]

TIMES = (0.45, 0.65, 0.85)  # of the timesteps: where a picture's content is decided
SENTENCES, MOST = 8, 24  # of each concept, and of all together
KEPT = 8  # retained words, with a sentence each
ROWS = 8  # of one pass
FAINT = 0.1  # of the longest |d|² of a concept: sentences with a shorter way do not count


@dataclass(frozen=True)
class Reading:
    """come: of the slowest sentence. slowest: its number in ``prompts``. moved: of the retained words."""

    come: float
    slowest: int
    moved: float


class Panel:
    """The panel of a run. Making it draws its pictures and predicts with the base model once.

    replaced: what a method puts in a concept's place: a word, "" for none, None for the empty prompt. targeted: whether
    the method has a target.
    """

    def __init__(self, run: Run, replaced: Callable[[Concept], str | None], *, targeted: bool = True) -> None:
        model, request = run.model, run.request
        concepts = request.erase[:: -(-len(request.erase) // MOST)]
        each = max(1, min(SENTENCES, MOST // len(concepts)))
        erased = [(form, one) for one in concepts for form in _forms(run, one.kind, each)]
        retained = neighbours(model, run.full_request, KEPT)
        words = [(_forms(run, one.kind, KEPT)[place % KEPT], one) for place, one in enumerate(retained)]
        self.model, self.count, self.targeted = model, len(erased), targeted
        self.prompts = [format_prompt(form, one.name) for form, one in [*erased, *words]]
        places = [replaced(one) for _, one in erased]
        self.targets = [target_prompt(form, at) for (form, _), at in zip(erased, places, strict=True)]
        self.targets += [target_prompt(form, "") for form, _ in words]
        images = run.images(self.prompts, title="pictures to watch")
        if run.counting:
            return
        noise = torch.randn(images.latents.shape, generator=seeds.stream(0, "panel")).to(model.device)
        times = [torch.full((len(noise),), int(share * model.num_timesteps)) for share in TIMES]
        self.inputs = [
            (model.add_noise(images.latents, noise, t.to(noise.device)), t.to(noise.device)) for t in times
        ]
        true = model.training_target(images.latents, noise).flatten(1)
        self.true = torch.cat([true] * len(times), dim=1)[: self.count]
        self.base = self._predicted(self.prompts)
        self.way = self._predicted(self.targets) - self.base
        self.length = self.way.square().sum(1)
        own = self.length[: self.count].view(len(concepts), each)
        # a sentence that hardly shows its concept says nothing of it
        self.counts = (own >= FAINT * own.amax(dim=1, keepdim=True)).flatten()
        if not targeted:
            self.worth = self._more(self.way[: self.count])
            # nor does one whose picture is predicted no worse without the concept
            self.counts &= self.worth > 0
            if not self.counts.any():
                raise InputError(
                    "stop=converged cannot see this concept: without its word held-out pictures are predicted no "
                    "worse; choose stop=none"
                )

    @property
    def rows(self) -> int:
        """Rows through the network of each reading; making the panel takes twice as many."""
        return len(self.prompts) * len(TIMES)

    @torch.no_grad()
    def read(self) -> Reading:
        """How far the weights that the model has now have come."""
        moved = self._predicted(self.prompts) - self.base
        way, n = self.way[: self.count], self.count
        if self.targeted:
            come = (moved[:n] * way).sum(1) / self.length[:n].clamp_min(1e-12)
        else:
            come = self._more(moved[:n]) / self.worth
        come = come.masked_fill(~self.counts, torch.inf)
        least = int(come.argmin())
        other, scale = moved[self.count :].square().sum(), self.length[self.count :].sum()
        return Reading(float(come[least]), least, float(other / scale) if scale > 0 else 0.0)

    def _more(self, moved: Tensor) -> Tensor:
        """How much larger the squared errors (sentences,) are after these moves than the base model's."""
        off = self.base[: self.count] - self.true
        return off.add(moved).square().sum(1) - off.square().sum(1)

    @torch.no_grad()
    def _predicted(self, prompts: Sequence[str]) -> Tensor:
        """The predictions (sentences, numbers of all times), by the text encoders and weights of now."""
        with self.model.frozen():
            cond = self.model.encode(prompts)
            return torch.cat([self._at(x, t, cond) for x, t in self.inputs], dim=1)

    def _at(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        rows = zip(*(torch.split(one, ROWS) for one in (x, t, cond)), strict=True)
        return torch.cat([self.model.eps(*some).flatten(1) for some in rows])


def _forms(run: Run, kind: str, count: int) -> list[str]:
    """``count`` sentences with ``{}`` that no method trains on; the model's templates where words are missing."""
    model = run.model
    try:
        words = unerased(model, run.full_request)
        found = forms(read("plain"), kind, words, count=count, seed=0, pool="test")
    except InputError:
        found = ()
    found = found if found and model.classes is None else model.hints.templates.get(kind, ("{}",))
    return [found[place % len(found)] for place in range(count)]
