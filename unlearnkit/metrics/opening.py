"""Open an evaluator's network: complete, finite, of a class of transformers, and tried on a picture.

Nothing is guessed. Loaders of transformers fill missing weights with random numbers, so weights that are missing or
left over are an error, unless the evaluator does not use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from ..errors import ModelError, nearest, one_line, printable, quoted
from ..families.hub import is_id, offline
from ..families.opening import quiet
from ..io.files import user_path
from ..io.reading import read_json
from ..model.edit import digest
from .kinds import POOLER, TEACHER, NetworkRole, matches

__all__ = ["Opened", "check_runs", "labels_of", "open_network", "refuse_nan"]

SIDE = 4096  # pixels of a picture's side, at most
LAYERS, NUMBER = 1000, 2**24  # upper bounds of numbers in config.json
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
PICTURES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Opened:
    """network: fp32, on the CPU. source, revision: its folder or hub id. unset: unused weights without a value."""

    network: Any
    name: str
    source: str
    revision: dict[str, str]
    unset: frozenset[str]

    def processor(self, kind: Any) -> Any:
        """The image processor, of a class of transformers."""
        return self._loaded(kind, "how pictures are prepared")

    def tokenizer(self) -> Any:
        """Its tokenizer. Raises ModelError where its files are missing."""
        files = ("tokenizer.json", "vocab.json")
        if not any(_file(self.source, name) for name in files):
            raise ModelError(
                f"{quoted(self.source)} has no tokenizer: a CLIP needs tokenizer.json, or vocab.json and merges.txt"
            )
        _refuse_code(self.source, "tokenizer_config.json", 2**128)
        return self._loaded(transformers.AutoTokenizer, "its tokenizer")

    def _loaded(self, kind: Any, what: str) -> Any:
        try:
            with quiet():
                return kind.from_pretrained(self.source, trust_remote_code=False, **self.revision)
        except Exception as error:  # a damaged file may make transformers raise anything
            raise ModelError(f"{quoted(self.source)} does not say {what}: {one_line(error)}") from None


def open_network(source: str | Path, role: NetworkRole) -> Opened:
    """A network of transformers for a role, from a folder or a hub id.

    Raises ModelError, in one line, for anything but a whole and finite network of one of the role's classes.
    """
    place, revision = _place(source)
    config = _config(place, role)
    class_name = role.classes[config["model_type"]]
    named = config.get("architectures")
    if isinstance(named, list) and f"{class_name}{TEACHER}" in named:
        class_name += TEACHER
    kind = getattr(transformers, class_name, None)
    if kind is None:
        raise ModelError(
            f"{quoted(place)} is a {class_name}, which transformers {transformers.__version__} lacks: use a newer one"
        )
    _check_files(place)
    if not any(_file(place, name) for name in PICTURES):
        raise ModelError(f"{quoted(place)} does not say how pictures are prepared: {PICTURES[0]} is missing")
    for name in PICTURES:
        _refuse_code(place, name, SIDE)
    how = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False, **revision}
    try:
        with quiet():
            network, info = kind.from_pretrained(place, output_loading_info=True, **how)
    except Exception as error:  # a damaged file may make transformers raise anything
        raise ModelError(
            f"{quoted(place)} cannot be opened as {role.name} ({class_name}): {one_line(error)}"
        ) from None
    unset = _check_whole(place, role, network, info)
    network = network.eval().requires_grad_(False)
    weights = {name: value for name, value in network.state_dict().items() if name not in unset}
    for name, value in weights.items():
        refuse_nan(value, f"{quoted(place)} is damaged: its weight {name!r}")
    name = f"{printable(Path(place).name)}@{digest(weights.items())[:8]}"
    return Opened(network, name, place, revision, unset)


def labels_of(labels: Any, source: str) -> tuple[str, ...]:
    """The labels in the order of their numbers. Raises ModelError if some are missing, or all are only numbers."""
    words = [labels.get(i) for i in range(len(labels))] if isinstance(labels, dict) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise ModelError(
            f"{quoted(source)} does not name its classes 0 to n - 1: mend id2label in its config.json"
        )
    if all(word == f"LABEL_{i}" for i, word in enumerate(words)):
        raise ModelError(
            f"{quoted(source)} does not name its {len(words)} classes: add id2label to its config.json"
        )
    return tuple(map(str, words))


def check_runs(source: str, look: Callable[[Sequence[Image.Image]], Any]) -> None:
    """Raise ModelError if a network cannot process a picture; called before anything is drawn."""
    picture = Image.new("RGB", (64, 64), "gray")
    try:
        with quiet():
            look([picture])
    except ModelError:
        raise
    except Exception as error:  # a configuration may make transformers raise anything
        raise ModelError(f"{quoted(source)} cannot process a picture: {one_line(error)}") from None


def refuse_nan(values: Any, what: str) -> None:
    """Raise ModelError if numbers are not finite; ``what`` begins the message."""
    if not bool(torch.isfinite(torch.as_tensor(values)).all()):
        raise ModelError(f"{what} has values that are not finite: use an undamaged one")


def _place(source: str | Path) -> tuple[str, dict[str, str]]:
    """The folder or hub id; of a hub id the commit, too."""
    folder = user_path(source)
    if folder.is_dir():
        return str(folder), {}
    if not is_id(str(source)) or folder.exists():
        raise ModelError(
            f"{quoted(source)} is no folder or hub id that transformers opens: give the folder of a network"
        )
    config = _file(str(source), "config.json")
    if config is None:
        where = "the hub is switched off here" if offline() else "on the hub it has no config.json"
        raise ModelError(
            f"{quoted(source)} is no folder or hub id that transformers opens: it is no folder, and {where}"
        )
    return str(source), {"revision": config.parent.name}


def _file(place: str, name: str) -> Path | None:
    """A file of a folder or a hub id, fetched if need be; None where it has no such file."""
    if not is_id(place) or Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    from transformers.utils import cached_file

    try:
        with quiet():
            file = cached_file(place, name, _raise_exceptions_for_missing_entries=False)
    except Exception as error:  # network, hub and cache raise errors of their own
        raise ModelError(
            f"{quoted(place)} is no folder or hub id that transformers opens: {one_line(error)}"
        ) from None
    return None if file is None else Path(file)


def _read(place: str, name: str) -> dict[str, Any]:
    path = _file(place, name)
    return {} if path is None else read_json(path, what=name, kind=dict, error=ModelError, largest=2**128)


def _config(place: str, role: NetworkRole) -> dict[str, Any]:
    """config.json. Raises ModelError for a model type that the role does not allow, and for forms that are not read."""
    if _file(place, "config.json") is None:
        raise ModelError(
            f"{quoted(place)} is no folder or hub id that transformers opens: it has no config.json"
        )
    config = _refuse_code(place, "config.json")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in role.classes:
        near = nearest(kind, role.classes) if isinstance(kind, str) else ""
        raise ModelError(
            f"{quoted(place)} is {quoted(kind)}, not {role.name}{near}: its model_type in config.json may be "
            f"{', '.join(role.classes)}"
        )
    for name, why in (
        ("quantization_config", "quantised: save it in float32, float16 or bfloat16"),
        ("transformers_weights", "kept in a file of another name: save it as transformers does"),
    ):
        if config.get(name):
            raise ModelError(f"{quoted(place)} is {why}")
    attention = config.get("attn_implementation") or config.get("_attn_implementation") or "sdpa"
    if attention not in ("eager", "sdpa"):
        raise ModelError(
            f"{quoted(place)} sets the attention {quoted(attention)}: only eager and sdpa are used"
        )
    if _file(place, "adapter_config.json"):
        raise ModelError(f"{quoted(place)} is an adapter to another model: merge it and give the whole model")
    return config


def _refuse_code(place: str, name: str, most: int = NUMBER) -> dict[str, Any]:
    """The contents of a configuration, which may name no code of its own and no enormous numbers."""
    config = _read(place, name)
    for key, value in _entries(config):
        if key == "auto_map":
            raise ModelError(
                f"{quoted(place)} names code of its own ({name}, auto_map), which is never run: use a network of "
                "one of transformers' classes"
            )
        bound = LAYERS if key.endswith("_layers") else most
        if isinstance(value, int) and abs(value) > bound:
            raise ModelError(
                f"{quoted(place)} has {key} = {quoted(value)} in {name}: at most {bound} is taken"
            )
    return config


def _entries(table: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Every name and value, of inner tables too; names of labels aside."""
    for key, value in table.items():
        yield key, value
        if isinstance(value, dict) and key not in ("id2label", "label2id"):
            yield from _entries(value)


def _check_files(place: str) -> None:
    """Raise ModelError unless all weights are in safetensors."""
    if _file(place, WEIGHTS):
        return
    if not _file(place, INDEX):
        pickled = _file(place, "pytorch_model.bin") or _file(place, "pytorch_model.bin.index.json")
        why = (
            "has only pickled weights, which can run code and are never opened"
            if pickled
            else "has no weights"
        )
        raise ModelError(f"{quoted(place)} {why}: save it as {WEIGHTS}")
    shards = _read(place, INDEX).get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else {None}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{quoted(place)} is damaged: {INDEX} names {quoted(name)}, not a .safetensors file"
            )


def _check_whole(place: str, role: NetworkRole, network: Any, info: dict[str, Any]) -> frozenset[str]:
    """The names of unused weights without a value. Raises ModelError for other missing or left over ones."""
    missing, extra = set(info["missing_keys"]), set(info["unexpected_keys"])
    unset = {name for name in missing if matches(name, role.absent)}
    pooler = {name for name in network.state_dict() if matches(name, (POOLER,))}
    if role.pooler and pooler and pooler <= missing:
        unset |= pooler
    if wrong := sorted(missing - unset):
        raise ModelError(
            f"{quoted(place)} is incomplete: {_listed(wrong)} missing, so it cannot be {role.name}"
        )
    if wrong := sorted(name for name in extra if not matches(name, role.extra)):
        raise ModelError(
            f"{quoted(place)} is not what its config.json says: {_listed(wrong)} left over, so it cannot be {role.name}"
        )
    if shapes := sorted(str(one[0]) for one in info["mismatched_keys"]):
        raise ModelError(
            f"{quoted(place)} is not what its config.json says: {_listed(shapes)} of another shape"
        )
    if problems := info.get("error_msgs"):
        raise ModelError(f"{quoted(place)} cannot be opened: {one_line(ValueError(problems[0]))}")
    return frozenset(unset)


def _listed(names: list[str]) -> str:
    """``weights 'a', 'b' and 3 more are``."""
    shown = ", ".join(quoted(name) for name in names[:2])
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    one = len(names) == 1
    return f"{'weight' if one else 'weights'} {shown}{more} {'is' if one else 'are'}"
