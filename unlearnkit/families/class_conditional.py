"""What class-conditional models share: a prompt is a class's name, a synonym or its number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, nearest, quoted
from ..schema import spelled
from .common import NO_ATTENTION_MAPS

__all__ = [
    "DEFAULTS",
    "LACKS",
    "PARTS",
    "belongs",
    "class_names",
    "class_numbers",
    "class_state",
    "last_token",
]

DEFAULTS: dict[str, Any] = NO_ATTENTION_MAPS | {
    "trains": "all",
    "sentences": False,
    "adversary": "none",
}
PARTS = {"all": "the whole denoiser"}
LACKS = dict.fromkeys(
    ("xattn-kv", "xattn", "not-xattn", "text", "values", "keys", "outputs", "attention"),
    "it is class-conditional, and no layer attends to words",
)


def belongs(part: str, name: str) -> bool:
    return True


def class_names(known: dict[str, int], count: int) -> tuple[str, ...]:
    """The classes' names in alphabetical order, or their numbers where they have none."""
    return tuple(sorted(known)) or tuple(str(number) for number in range(count))


def class_state(known: dict[str, int], count: int, prompt: str, device: torch.device) -> Tensor:
    """States (1, 1): the number of the prompt's class, or ``count`` for the empty prompt.

    Raises InputError for an unknown class.
    """
    number = {spelled(name): number for name, number in known.items()}.get(prompt) if prompt else count
    if number is None and prompt.isdecimal() and int(prompt) < count:
        number = int(prompt)
    if number is None:
        raise InputError(
            f"class {quoted(prompt)} is unknown{nearest(prompt, known)}: give the name of one, or a number from 0 to "
            f"{count - 1}"
        )
    return torch.tensor([[float(number)]], device=device)


def class_numbers(states: Tensor, negative: Tensor, count: int) -> list[int]:
    """The classes of states (n, 1, 1). Raises InputError for a negative prompt."""
    if set(negative[:, 0, 0].tolist()) != {float(count)}:
        raise InputError("a class-conditional model takes no negative prompt: leave it out")
    classes: list[int] = states[:, 0, 0].long().tolist()
    return classes


def last_token(pipe: Any, text: str) -> int:
    return 0
