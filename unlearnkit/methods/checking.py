"""What every edit passes: names that the model can tell apart, sound weights, and a prediction that moved."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch

from .. import seeds
from ..data.recognition import check_recognised
from ..errors import EditError, InputError, ModelError, quoted
from ..families import any_size
from ..model.batches import many
from ..model.edit import Edit
from ..model.encoders import encoders, token_ids
from ..model.model import Model
from ..model.restore import steady
from ..schema import NEAREST, Request, folded

__all__ = ["check_known", "check_lengths", "check_moved", "check_names"]

SOME, SAMPLE = 32, 4  # the most concepts that are all predicted, and how many of more
SMALL = 16  # height and width of latents that show whether a U-Net's prediction moved


def check_lengths(model: Model, request: Request) -> None:
    """Raises InputError for a name that the text encoder cuts off, and for an unknown class."""
    for concept in (*request.erase, *request.keep):
        for text in (*concept.wordings, "" if concept.instead in (None, NEAREST) else concept.instead):
            model.reads(text)


def check_known(model: Model, request: Request, *, force: bool) -> None:
    """Raises InputError as ``check_lengths`` does and, unless forced, for a name that means nothing to the model."""
    check_lengths(model, request)
    if not force:
        check_recognised(model, request)


def check_names(model: Model, request: Request) -> None:
    """Raises InputError for a name that the text encoder cuts off, and for two different names that are one to it."""
    check_lengths(model, request)
    key = _key(model, request)
    erased: dict[Hashable, list[tuple[int, str]]] = {}
    for number, concept in enumerate((*request.erase, *request.keep)):
        states = [key(word) for word in concept.wordings]
        for word, state in zip(concept.wordings, states, strict=True):
            for other, name in erased.get(state, ()):
                if other != number and folded(name) != folded(word):
                    raise InputError(
                        f"{quoted(name)} and {quoted(word)} are one and the same to {model.source}: leave one out"
                    )
        if number < len(request.erase):
            for word, state in zip(concept.wordings, states, strict=True):
                erased.setdefault(state, []).append((number, word))
        if concept.instead is not None and key(concept.instead) == states[0]:
            raise InputError(
                f"{quoted(concept.name)} and {quoted(concept.instead)} are one and the same to {model.source}: "
                "give another 'instead'"
            )


def _key(model: Model, request: Request) -> Callable[[str], Hashable]:
    """What tells texts apart: their states; in a request of many wordings their tokens, which need no encoder."""
    if many((*request.erase, *request.keep)) and encoders(model.pipe):
        return lambda text: token_ids(model.pipe, text)
    return lambda text: model.encode([text])[0].float().cpu().contiguous().numpy().tobytes()


@steady()
@torch.no_grad()
def check_moved(model: Model, request: Request, edit: Edit) -> None:
    """Predict for every erased name with and without the edit: as noise draws it, early and late.

    Of more than ``SOME`` concepts a sample of ``SAMPLE`` is predicted, evenly spaced. A U-Net predicts small latents;
    only where they do not move, latents of the model's own size.

    Raises InputError where a prediction is what it was, to the last bit; ModelError and EditError where one is not
    finite, before or after. No global generator is read, and nothing is changed.
    """
    if not edit.weights and not edit.hooks:
        raise InputError(
            "the edit changes no weight: raise lr or steps, lower ridge, or choose another method"
        )
    every = len(request.erase)
    some = request.erase if every <= SOME else [request.erase[i * every // SAMPLE] for i in range(SAMPLE)]
    still, small = [concept.name for concept in some], (model.shape[0], SMALL, SMALL)
    if any_size(model.family) and min(model.shape[1:]) > SMALL:
        still = _still(model, still, edit, small)
    if still := _still(model, still, edit, model.shape):
        raise InputError(
            f"the edit moves nothing that {model.source} predicts for {quoted(still[0])} in {model.precision}: raise "
            "lr or steps, lower ridge, or choose another method"
        )


def _still(model: Model, names: Sequence[str], edit: Edit, shape: tuple[int, int, int]) -> list[str]:
    """The names whose predictions for latents of this shape the edit leaves as they are."""
    times = (model.num_timesteps // 4, 3 * model.num_timesteps // 4)
    rows, moved = [(name, time) for name in names for time in times], set[str]()
    for start in range(0, len(rows), model.batch):
        part = rows[start : start + model.batch]
        draws = seeds.stream(0, "moved", start)
        x = torch.randn((len(part), *shape), generator=draws).to(model.device)
        t = torch.tensor([time for _, time in part], device=model.device)
        prompts = [name for name, _ in part]
        with model.frozen():
            before = model.predict(x, t, model.encode(prompts))
            with model.wearing(edit):
                after = model.predict(x, t, model.encode(prompts))
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
            if not torch.equal(before[number], after[number]):
                moved.add(name)
    return [name for name in names if name not in moved]
