"""What the nodes do with ComfyUI's MODEL and CLIP: patches of weights, a guard around the network, text states.

ComfyUI names layers as the first checkpoints did. Its own ``comfy.lora`` has those names for every name that a LoRA
file may use, and an unlearnkit edit is looked up under the name that its LoRA would have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy.lora
import torch
from safetensors import safe_open
from torch import Tensor

from unlearnkit.errors import InputError
from unlearnkit.export.lora import factors
from unlearnkit.export.names import encoder, kohya
from unlearnkit.io import tensors
from unlearnkit.methods.uce import UCE
from unlearnkit.model.edit import Edit
from unlearnkit.model.hints import GENERAL
from unlearnkit.model.hooks import Hook, attached
from unlearnkit.schema import NEAREST, Request
from unlearnkit.settings import build
from unlearnkit.training.job import Run

LORA = (".lora_up.weight", ".lora_down.weight", ".alpha", ".lora_A.weight", ".lora_B.weight")
EXACT = 1e-13  # share of |change|² that low-rank factors of UCE's change may lose


def applied(model: Any, clip: Any, path: str, strength: float) -> tuple[Any, Any]:
    """A MODEL and a CLIP (or None) with the edit or LoRA in this file. Raises InputError if any of it would be lost."""
    with safe_open(path, framework="pt") as file:
        lora = any(name.endswith(LORA) for name in file.keys())  # noqa: SIM118
    if lora:
        found, _ = tensors.read(path)
        patches, hooks = _lora(model, clip, found, Path(path).name), ()
    else:
        edit = Edit.load(path)
        patches, hooks = _changes(model, clip, edit), edit.hooks
    model, clip = (one if one is None else one.clone() for one in (model, clip))
    taken = set(model.add_patches(patches, strength))
    taken |= set(clip.add_patches(patches, strength)) if clip else set()
    if lost := [key for key in patches if key not in taken]:
        raise InputError(f"{Path(path).name}: ComfyUI did not take {len(lost)} weights, such as {lost[0]}")
    if hooks:
        _guard(model, hooks, strength)
    return model, clip


def erased(model: Any, clip: Any, request: Request, erase_weight: float, strength: float) -> Any:
    """A MODEL without the concepts, by UCE's closed form on its own keys, values and text states."""
    bases = model.get_key_patches("diffusion_model.")
    reads = [key for key in bases if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    if not reads:
        raise InputError(
            "UCE needs a model of Stable Diffusion 1, 2 or XL: this one has no cross-attention to text"
        )
    if NEAREST in {concept.instead for concept in request.erase}:
        raise InputError("instead = nearest needs predictions of the model: give a word, or nothing")
    texts = Texts(clip)
    for concept in (*request.erase, *request.keep):
        for word in (*concept.wordings, concept.instead or ""):
            texts.check(word)
    settings = {**GENERAL.settings("uce", request.erase[0].kind), "erase_weight": erase_weight}
    method = build(UCE, settings)
    with torch.no_grad():
        delta = method.delta(*method.sums(Run(texts, request, None)))  # type: ignore[arg-type]
        up, down = factors(delta, None, EXACT)
        lora = {}
        for key in reads:
            lora |= {f"{key}.lora_up.weight": _present(bases[key], key) @ up, f"{key}.lora_down.weight": down}
    model = model.clone()
    model.add_patches(comfy.lora.load_lora(lora, {key: key for key in reads}), strength)
    return model


class Texts:
    """A CLIP of the graph as that part of ``unlearnkit.Model`` which a closed form reads."""

    family, hints = None, GENERAL

    def __init__(self, clip: Any) -> None:
        self.clip = clip

    def text(self, prompts: Sequence[str]) -> Tensor:
        """The text states (n, tokens, width)."""
        return torch.cat([self.clip.encode_from_tokens(self._tokens(one)).float().cpu() for one in prompts])

    def last_token(self, text: str) -> int:
        """The index of the text's last token; 0, the start token, for the empty text."""
        chunk = next(iter(self._tokens(text, return_word_ids=True).values()))[0]
        return max((place for place, token in enumerate(chunk) if token[2]), default=0)

    def check(self, text: str) -> None:
        """Raises InputError for a text that fills more than one of ComfyUI's chunks of 77 tokens."""
        if any(len(chunks) > 1 for chunks in self._tokens(text).values()):
            raise InputError(f"{text[:40]!r} is too long for the text encoder: use a shorter wording")

    def _tokens(self, text: str, **options: Any) -> Any:
        plain = text.replace("(", r"\(").replace(")", r"\)")  # plain brackets are weights to ComfyUI
        return self.clip.tokenize(plain, **options)


def _changes(model: Any, clip: Any, edit: Edit) -> dict[str, tuple[Tensor]]:
    """ComfyUI's patches for an edit: its values minus the model's own, by ComfyUI's key."""
    if any(name.startswith("transformer.") for name in edit.weights):
        raise InputError(
            "the edit is of a transformer, whose layers ComfyUI joins: load its LoRA (unlearnkit export)"
        )
    keys, patches = _keys(model, clip), {}
    bases = model.get_key_patches() | (clip.get_key_patches() if clip else {})
    large = any(key.startswith("clip_g.") for key in bases)
    for name, value in edit.weights.items():
        component, _, rest = name.partition(".")
        module, _, leaf = rest.rpartition(".")
        text = component.startswith("text_encoder")
        layer = encoder(component, module, large=large, peft=False) if text else kohya(module, {})
        key = f"{keys.get(layer, '').removesuffix('weight')}{leaf}"
        if key not in bases:
            needs = "connect CLIP, or " if text and not clip else ""
            raise InputError(
                f"the edit changes {name}, which this model does not have: {needs}load the model it was made from"
            )
        own = _own(bases[key])
        if own.shape != value.shape:
            raise InputError(
                f"the edit's {name} is {tuple(value.shape)}, this model's is {tuple(own.shape)}: load the "
                "model it was made from"
            )
        patches[key] = (value - own,)
    return patches


def _lora(model: Any, clip: Any, lora: Mapping[str, Tensor], name: str) -> dict[Any, Any]:
    """ComfyUI's patches for a LoRA of unlearnkit, every tensor of it."""
    keys = _keys(model, clip)
    layers = {key: key.removesuffix(next((end for end in LORA if key.endswith(end)), "")) for key in lora}
    if lost := [key for key, layer in layers.items() if layer not in keys]:
        needs = "connect CLIP, or " if not clip and lost[0].startswith(("lora_te", "text_encoder")) else ""
        raise InputError(
            f"{name}: {len(lost)} of {len(lora)} tensors have no layer in this model, such as {lost[0]}: {needs}"
            "load the model that it was made from"
        )
    return comfy.lora.load_lora(dict(lora), keys)


def _keys(model: Any, clip: Any) -> dict[str, Any]:
    """ComfyUI's key of a weight, by the name of its layer in LoRA files."""
    keys: dict[str, Any] = comfy.lora.model_lora_keys_unet(model.model, {})
    return comfy.lora.model_lora_keys_clip(clip.cond_stage_model, keys) if clip else keys


def _own(entry: Sequence[Any]) -> Tensor:
    """The weight itself (fp32, on the CPU), without the patches of other nodes. entry: of ``get_key_patches``."""
    weight, convert = entry[0]
    return convert(weight.detach().to("cpu", torch.float32, copy=True), inplace=True)


def _present(entry: Sequence[Any], key: str) -> Tensor:
    """The weight with the patches of earlier nodes."""
    return comfy.lora.calculate_weight(entry[1:], _own(entry), key)


def _guard(model: Any, hooks: Sequence[Hook], strength: float) -> None:
    """Let the guards act whenever this MODEL (not its clones before) predicts."""
    network = model.model.diffusion_model
    values = [name for name, _ in network.named_modules() if name.endswith("attn2.to_v")]
    if not values:
        raise InputError(
            "the edit is a guard, which acts in Stable Diffusion 1, 2 and XL only: load such a model"
        )
    names = [f"unet.{name}.weight" for name in values]
    scaled = tuple(
        dataclasses.replace(hook, settings={**hook.settings, "most": hook.settings["most"] * strength})
        for hook in hooks
    )

    def around(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with attached(network, scaled, lambda part: names):
            return executor(*args, **kwargs)

    with attached(network, scaled, lambda part: names):
        pass  # a guard for another width is refused here, not while drawing
    model.add_wrapper_with_key("diffusion_model", "unlearnkit", around)
