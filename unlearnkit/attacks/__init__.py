"""Attacks: searches for prompts, embeddings, latents or weights that bring an erased concept back."""

from __future__ import annotations

from ..errors import InputError, nearest, quoted
from .attack import BUDGETS, Attack, Budget, Cost, Victim
from .completion import Completion
from .inpainting import Inpainting
from .inversion import Inversion
from .latent_guidance import LatentGuidance
from .mma import MMA
from .noise_probe import NoiseProbe
from .p4d import P4D
from .probe import Probe
from .random_search import RandomSearch
from .relearning import Relearning
from .result import Attempt, SearchResult
from .ring_a_bell import RingABell
from .sdedit import SDEdit
from .text_free import TextFree
from .unlearndiffatk import UnlearnDiffAtk
from .weight_changes import WeightChanges
from .wording import Wording

__all__ = ["ATTACKS", "BUDGETS", "Attack", "Attempt", "Budget", "Cost", "SearchResult", "Victim", "find"]

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        *(Probe(), Wording(), RandomSearch()),
        *(UnlearnDiffAtk(), P4D(), RingABell(), MMA()),
        *(Inversion(), SDEdit(), Completion(), Inpainting(), NoiseProbe(), LatentGuidance(), TextFree()),
        *(Relearning(), WeightChanges()),
    )
}


def find(name: str) -> Attack:
    """The attack called ``name``; InputError with the nearest name for an unknown one."""
    if name not in ATTACKS:
        raise InputError(
            f"attack {quoted(name)} is unknown{nearest(name, ATTACKS)}: use one of {', '.join(ATTACKS)}"
        )
    return ATTACKS[name]
