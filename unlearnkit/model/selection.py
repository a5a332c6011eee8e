"""Which of a model's weights belong to a named part."""

from __future__ import annotations

from collections.abc import Callable, Container

from ..errors import InputError, nearest
from ..families import Family
from .weights import component

__all__ = ["TEXT_ENCODER", "belongs"]

TEXT_ENCODER = "text-encoder"  # the one part that is not of the denoiser


def belongs(family: Family, encoders: Container[str], part: str) -> Callable[[str], bool]:
    """Whether a weight, by its full name, belongs to the part. encoders: the names of the text encoders.

    Raises InputError for a part that is unknown, or that a model of this family does not have.
    """
    if part == TEXT_ENCODER:
        if not encoders:
            raise InputError(
                f"{family.TITLE} has no text encoder: it is class-conditional; choose another method"
            )
        return lambda name: component(name) in encoders and _in_a_layer(name)
    if part in family.LACKS:
        raise InputError(f"{family.TITLE} has no part {part!r}: {family.LACKS[part]}")
    if part not in family.PARTS:
        raise InputError(
            f"part {part!r} is unknown{nearest(part, family.PARTS)}: use one of {', '.join(family.PARTS)}"
        )
    return lambda name: component(name) == family.DENOISER and family.belongs(part, name)


def _in_a_layer(name: str) -> bool:
    """Whether a text encoder's weight is in one of its layers, and not a norm's."""
    return any(f".{blocks}." in name for blocks in ("layers", "block")) and "norm" not in name
