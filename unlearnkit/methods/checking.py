"""What every edit passes: names that the model can tell apart, sound weights, and a prediction that moved."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import seeds
from ..errors import EditError, InputError, ModelError, quoted
from ..model.edit import Edit
from ..model.model import Model
from ..model.restore import steady
from ..schema import Request, folded

__all__ = ["check_moved", "check_names"]


def check_names(model: Model, request: Request) -> None:
    """Raises InputError for a name that the text encoder cuts off, and for two different names that are one to it."""
    for concept in (*request.erase, *request.keep):
        for text in (*concept.wordings, concept.instead or ""):
            model.reads(text)
    erased: list[tuple[int, str, Tensor]] = []
    for number, concept in enumerate((*request.erase, *request.keep)):
        states = model.encode(concept.wordings)
        for word, state in zip(concept.wordings, states, strict=True):
            for other, name, known in erased:
                if other != number and folded(name) != folded(word) and torch.equal(known, state):
                    raise InputError(
                        f"{quoted(name)} and {quoted(word)} are one and the same to {model.source}: leave one out"
                    )
        if number < len(request.erase):
            erased += [(number, word, state) for word, state in zip(concept.wordings, states, strict=True)]
        if concept.instead is not None and torch.equal(model.encode([concept.instead])[0], states[0]):
            raise InputError(
                f"{quoted(concept.name)} and {quoted(concept.instead)} are one and the same to {model.source}: "
                "give another 'instead'"
            )


@steady()
@torch.no_grad()
def check_moved(model: Model, request: Request, edit: Edit) -> None:
    """Predict for every erased name with and without the edit: as noise draws it, early and late.

    Raises InputError where a prediction is what it was, to the last bit; ModelError and EditError where one is not
    finite, before or after. No global generator is read, and nothing is changed.
    """
    if not edit.weights and not edit.hooks:
        raise InputError(
            "the edit changes no weight: raise lr or steps, lower ridge, or choose another method"
        )
    times = (model.num_timesteps // 4, 3 * model.num_timesteps // 4)
    rows = [(concept.name, time) for concept in request.erase for time in times]
    moved: dict[str, bool] = {}
    for start in range(0, len(rows), model.batch):
        part = rows[start : start + model.batch]
        draws = seeds.stream(0, "moved", start)
        x = torch.randn((len(part), *model.shape), generator=draws).to(model.device)
        t = torch.tensor([time for _, time in part], device=model.device)
        names = [name for name, _ in part]
        with model.frozen():
            before = model.predict(x, t, model.encode(names))
            with model.wearing(edit):
                after = model.predict(x, t, model.encode(names))
        for number, (name, _) in enumerate(part):
            if not torch.isfinite(before[number]).all():
                raise ModelError(
                    f"{model.source} predicts no finite number for {quoted(name)}: its weights are damaged, or too "
                    f"large for {model.precision}"
                )
            if not torch.isfinite(after[number]).all():
                raise EditError(
                    f"the edit makes {model.source} predict no finite number for {quoted(name)}: lower lr"
                )
            moved[name] = moved.get(name, False) or not torch.equal(before[number], after[number])
    if still := [name for name, found in moved.items() if not found]:
        raise InputError(
            f"the edit moves nothing that {model.source} predicts for {quoted(still[0])} in {model.precision}: raise "
            "lr or steps, lower ridge, or choose another method"
        )
