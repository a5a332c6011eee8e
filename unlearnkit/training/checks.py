"""The checks that a training method's settings fit together."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..parts import erasing
from .settings import Training

__all__ = ["check"]


def check(settings: Training, *, losses: Sequence[str]) -> None:
    """Raise InputError for settings that do not fit together, or do not fit losses of these names."""
    erase, keep = any(map(erasing, losses)), not all(map(erasing, losses))
    trains, combine, mask, rule = settings.trains, settings.combine, settings.mask, settings.rule
    gives = f"this method gives only {', '.join(losses)}"
    if (trains == "text-encoder") != settings.ENCODES:
        only = "this method trains the text encoder" if settings.ENCODES else "only advunlearn trains it"
        raise InputError(f"trains={trains} is not for this method: {only}; leave the setting out")
    if settings.adversary != "none" and (settings.ENCODES or not erase):
        reason = (
            "advunlearn has an adversary of its own" if settings.ENCODES else f"{gives}, none that erases"
        )
        raise InputError(f"adversary={settings.adversary} is not for this method: {reason}; leave it out")
    if combine != "sum" and not (erase and keep):
        raise InputError(
            f"combine={combine} needs an erasing and a retain loss, and {gives} with these settings: "
            "choose combine=sum, or add a retain loss"
        )
    if settings.adds and not combine.startswith("preserving"):
        raise InputError(f"adds belongs to combine=preserving, not to combine={combine}: leave it out")
    if mask != "none" and not erase:
        raise InputError(f"mask={mask} ranks weights by an erasing loss, and {gives}: choose mask=none")
    if mask != "none" and trains == "lora":
        raise InputError(
            f"mask={mask} selects single weights, and trains=lora has none: choose mask=none, or trains=xattn"
        )
    if rule and trains == "lora":
        raise InputError(
            f"rule={','.join(rule)} constrains the weights themselves, and trains=lora trains factors of their "
            "change: choose no rule, or trains=xattn"
        )
    if "project" in rule and mask != "none":
        raise InputError(
            f"rule=project changes whole rows of a matrix, and mask={mask} fixes single entries: choose one"
        )
    if "project" in rule and trains in ("not-xattn", "text-encoder"):
        raise InputError(
            f"rule=project constrains keys and values, and trains={trains} does not train them: choose "
            "trains=xattn-kv, or leave the rule out"
        )
