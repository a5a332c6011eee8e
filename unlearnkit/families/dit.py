"""DiT: a class-conditional diffusion transformer; a prompt is a class's name or its number."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, ModelError
from .class_conditional import DEFAULTS as DEFAULTS
from .class_conditional import LACKS as LACKS
from .class_conditional import PARTS as PARTS
from .class_conditional import belongs as belongs
from .class_conditional import class_names, class_numbers, class_state
from .class_conditional import last_token as last_token
from .common import cross_attention as cross_attention
from .common import decoded as decoded
from .common import guided as guided
from .common import posterior as posterior
from .schedules import Diffusion

TITLE = "class-conditional DiT"
PIPELINES: tuple[str, ...] = ("DiTPipeline",)
DENOISER = "transformer"
NULL = 1000  # DiTPipeline's class for no class


def sampling(pipe: Any) -> tuple[int, float]:
    return 50, 4.0


def check(pipe: Any) -> None:
    if pipe.transformer.config.num_embeds_ada_norm != NULL:
        raise ModelError(
            f"the denoiser knows {pipe.transformer.config.num_embeds_ada_norm} classes, and DiTPipeline takes number "
            f"{NULL} for none: use a model with {NULL} classes"
        )


def classes(pipe: Any) -> tuple[str, ...]:
    return class_names(pipe.labels, NULL)


def encode(pipe: Any, prompt: str, device: torch.device) -> Tensor:
    return class_state(pipe.labels, NULL, prompt, device)


def room(pipe: Any, text: str, tokens: int | None) -> tuple[int, int]:
    class_state(pipe.labels, NULL, text, torch.device("cpu"))
    return 1, 1


def text(pipe: Any, states: Tensor) -> Tensor:
    # the first layer's embeddings of the classes, in which similar classes are close
    table = pipe.transformer.transformer_blocks[0].norm1.emb.class_embedder.embedding_table
    embedded: Tensor = table(states[:, :, 0].long())
    return embedded


def shape(pipe: Any, size: int | None) -> tuple[int, int, int]:
    config = pipe.transformer.config
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    if size not in (None, config.sample_size * factor):
        raise InputError(f"pictures of {size} pixels cannot be made: this model has one size, leave it out")
    return config.in_channels, config.sample_size, config.sample_size


def schedule(pipe: Any, shape: tuple[int, int, int]) -> Diffusion:
    return Diffusion(pipe.scheduler)


def predict(pipe: Any, latents: Tensor, t: Tensor, states: Tensor) -> Tensor:
    output: Tensor = pipe.transformer(
        latents, timestep=t, class_labels=states[:, 0, 0].long(), return_dict=False
    )[0]
    return output[:, : latents.shape[1]]


def saved(pipe: Any, folder: Path) -> None:
    synonyms: dict[int, list[str]] = {}
    for name, number in pipe.labels.items():
        synonyms.setdefault(number, []).append(name)
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["id2label"] = {
        str(number): ", ".join(synonym_names) for number, synonym_names in sorted(synonyms.items())
    }
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def draw(pipe: Any, states: Tensor, negative: Tensor, guidance: float, **how: Any) -> Any:
    classes = class_numbers(states, negative, NULL)
    latent = how.pop("output_type") == "latent"
    how = {name: how[name] for name in ("generator", "num_inference_steps")}
    if not latent:
        return pipe(classes, guidance, output_type="pil", **how).images
    stored: list[Tensor] = []

    def decode(latents: Tensor) -> Any:
        stored.append(latents)
        return SimpleNamespace(sample=latents[:, :3])

    # the pipeline has no latent output: for this call a stand-in for the VAE stores them
    vae, vars(pipe)["vae"] = (
        pipe.vae,
        SimpleNamespace(decode=decode, config=SimpleNamespace(scaling_factor=1.0)),
    )
    try:
        pipe(classes, guidance, output_type="pt", **how)
    finally:
        vars(pipe)["vae"] = vae
    return stored[0]
