"""Settings that had another name in earlier versions, and those that were removed.

An old name in new settings gives an error with the new name. Finished runs and ledgers are read with their old names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["OLD", "current", "moved", "removed"]

_RETAIN = {"keep_target": "retain_target", "untold": "prompt_dropout"}
_UCE = {"erase_scale": "erase_weight", "keep_scale": "retain_weight", "keep_sentences": "retain_sentences"}
_WEIGHED = {"keep_weight": "retain_weight", "keep_pictures": "retain_pictures"}
_RENAMED: dict[str, dict[str, str]] = {
    "esd": {"keep": "retain_weight", "keep_pictures": "retain_pictures"},
    "ca": {"keep": "retain_weight", **_RETAIN},
    "doco": {"keep": "retain_weight", **_RETAIN, "warm_up": "discriminator_warmup"},
    "rgd": {
        "keep_weight": "retain_weight",
        **_RETAIN,
        "erase_scale": "relative_erase",
        "whole_keep": "retain_full_batch",
    },
    "duge": {
        "erase": "attention_weight",
        "erase_scale": "relative_erase",
        "output": "output_weight",
        "prior": "retain_weight",
        "prior_target": "retain_target",
        "related": "neighbours",
        "related_pictures": "retain_pictures",
        "distil": "distil_weight",
    },
    "sculpting": {
        "target": "teacher",
        "away": "eta",
        "align": "retain_weight",
        "aligned": "retain_set",
        "distil": "distil_weight",
        "replay": "replay_weight",
        "untold": "prompt_dropout",
    },
    "salun": {**_WEIGHED, "target": "teacher"},
    "graddiff": _WEIGHED,
    "finetune": {"keep_pictures": "retain_pictures"},
    "erasediff": {"keep_pictures": "retain_pictures", "eta": "balance_eta", "weight": "erase_weight"},
    "selective_amnesia": {"keep_pictures": "retain_pictures", "replay": "retain_weight"},
    "uce": _UCE,
    "uce-diverse": _UCE,
}
OLD = {(method, old): new for method, names in _RENAMED.items() for old, new in names.items()}

_VALUES: dict[str, dict[Any, Any]] = {
    "teacher": {"teacher": "frozen"},
    "relative_erase": {"none": False, "first": True},
}

_TRAINING: dict[str, tuple[Any, ...]] = {
    "mask_swap": (0.2,),
    "mask_until": (0.8,),
    "mask_gate": ("weights",),
    "optimiser": ("adam",),
}
_START: dict[str, tuple[Any, ...]] = {
    "hold_start": (True, False)
}  # False where there is no start token to hold
_REMOVED: dict[str, dict[str, tuple[Any, ...]]] = {  # with the values that mean what is done now
    **dict.fromkeys(
        ("rgd", "sculpting", "graddiff", "finetune", "erasediff", "selective_amnesia", "ga"), _TRAINING
    ),
    "esd": {**_TRAINING, "eta_is": ("paper",), "start_guidance": (3.0,)},
    "ca": {**_TRAINING, **_START},
    "doco": {**_TRAINING, **_START, "domain": ("x0",), "discriminator": ("patchgan",)},
    "salun": {**_TRAINING, "saliency_guidance": (7.5,)},
    "duge": {**_TRAINING, "layers": ((), [])},
    "guards": {"bank_holds": ("pictures",), "l1sp_first": (0.0,), "l2sp_first": (0.0,)},
}


def removed(method: str, name: str) -> bool:
    """Whether an earlier version of the method (or ``guards``) had this setting, and none has taken its place."""
    return name in _REMOVED.get(method, {})


def moved(method: str, name: str) -> str | None:
    """What to say to whoever gives an old name; None for a name that never was one."""
    if (new := OLD.get((method, name))) is not None:
        return f"setting {name!r} of {method} is now {new!r}"
    if removed(method, name):
        return f"setting {name!r} of {method} was removed: leave it out"
    return None


def current(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an earlier version under today's names.

    A removed one is left out where its value means what is done now anyway; with another value it stays, so that the
    edit is not silently made again as something else.
    """
    found = {}
    for name, value in settings.items():
        if removed(method, name) and value in _REMOVED[method][name]:
            continue
        new = OLD.get((method, name), name)
        known = _VALUES.get(new, {}) if new != name else {}
        found[new] = known[value] if isinstance(value, str) and value in known else value
    return found
