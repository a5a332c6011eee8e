"""UCE: Unified Concept Editing in Diffusion Models (Gandikota et al. 2024, arXiv 2308.14761), equation 7.

For each matrix W that reads the text (key or value of cross-attention), with columns c of text states and their wanted
outputs v* = W g:

    W' = (λ W + s_e Σ_e v*_e c_eᵀ + s_k Σ_k W c_k c_kᵀ) A⁻¹,    A = λ I + s_e Σ_e c_e c_eᵀ + s_k Σ_k c_k c_kᵀ

A is the same for every matrix. Subtracting W A on both sides, with v* = W g, leaves what is computed here: one float64
solve in all, nothing inverted, a change of rank no higher than the number of erased columns, and sums as wide as the
text, however many texts there are:

    W' - W = W (s_e Σ_e (g - c_e) c_eᵀ A⁻¹)

It moves what it is shown and nothing else. ``uce-diverse`` (ours) shows it more: the concept in the diverse sentences
of RGD (arXiv 2412.07808), and the words around it, which stay, in many more.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..method import Method, Plan
from ..model import Model
from ..schema import Concept, Request
from ..settings import inherited, setting
from ..training.descend import Job
from ..training.grammar import forms, read
from ..training.prompts import neighbours, texts, unerased
from ..wording import fill, until

__all__ = ["DIVERSE", "METHOD", "Diverse", "Settings", "change", "normal"]

PART = "text"
INSTEAD = {"object": "", "style": "art"}
ILL = 1e12


@dataclass(frozen=True)
class Settings:
    erase_scale: float = setting(1.0, "weight s_e of what is erased", low=0.0, source="released code, 2025")
    keep_scale: float = setting(1.0, "weight s_k of what is kept", low=0.0, source="released code, 2025")
    ridge: float = setting(
        0.5, "weight λ of the old matrix: larger changes less", low=0.0, source="released code, 2025"
    )
    tokens: Literal["last", "all"] = setting(
        "last",
        "text states used: the concept's last token, or that and all after it (kept prompts: every token)",
        source="last: released code, 2025; all: released code, 2023",
    )
    templates: bool = setting(
        False, "edit the wordings in the model's templates too, not only bare", source="released code: off"
    )
    sentences: int = setting(
        0,
        "edit at most so many sentences of the grammar with each concept, beside the wordings above",
        low=0,
        high=100_000,
        source="ours, after RGD's diverse sets; paper: 0",
    )
    keep_sentences: int = setting(
        0,
        "keep at most so many such sentences with each kept concept",
        low=0,
        high=100_000,
        source="ours; paper: 0",
    )
    grammar: str = setting(
        "plain", "plain, people, scenes, or the path of a TOML file", source="ours, after RGD's paper"
    )
    neighbours: int = setting(
        0,
        "if the request keeps nothing: so many of the nearest words are kept",
        low=0,
        source="ours; paper: 0",
    )


def normal(erased: Tensor, kept: Tensor, settings: Settings) -> Tensor:
    """The matrix A (width, width) from Σ c_e c_eᵀ and Σ c_k c_kᵀ, all float64."""
    eye = torch.eye(len(erased), dtype=torch.float64)
    return settings.ridge * eye + settings.erase_scale * erased + settings.keep_scale * kept


def change(a: Tensor, towards: Tensor, settings: Settings) -> Tensor:
    """What every W is multiplied with to get W' - W: s_e Σ_e (g - c) cᵀ A⁻¹ (width, width); ``towards`` is the sum."""
    solved: Tensor = torch.linalg.solve(a, towards.T)  # A is its own transpose
    return settings.erase_scale * solved.T


@torch.no_grad()
def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The new keys and values. The seed chooses the sentences, if any. Raises InputError for a singular A."""
    told = [(concept, settings.sentences, True) for concept in request.erase]
    told += [
        (concept, settings.keep_sentences, False)
        for concept in neighbours(model, request, settings.neighbours)
    ]

    @functools.cache
    def sentences_of(kind: str, count: int) -> tuple[str, ...]:
        words = unerased(model, request)
        return forms(read(settings.grammar), kind, words, count=count, seed=seed) if count else ()

    sums: dict[str, Tensor] = {}
    for done, (concept, sentences, goes) in enumerate(told):
        for text in _texts(model, concept, sentences_of(concept.kind, sentences), settings):
            for name, product in _products(model, concept, *text, settings, goes=goes).items():
                sums[name] = sums[name] + product if name in sums else product
        if job.progress:
            job.progress("reading", done + 1, len(told))
    a = normal(sums["erased"], sums.get("kept", torch.zeros_like(sums["erased"])), settings)
    values = torch.linalg.eigvalsh(a)
    if values[0] <= 0 or values[-1] / values[0] > ILL:
        raise InputError(
            f"the equations are singular with ridge = {settings.ridge:g}: raise ridge, for example to 0.5"
        )
    turn = change(a, sums["towards"], settings)
    weights = {}
    for done, (name, weight) in enumerate(model.weights(PART).items()):
        w = weight.detach().cpu().double()
        weights[name] = (w + w @ turn).float()
        if job.progress:
            job.progress("solving", done + 1, len(model.weights(PART)))
    return weights


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    weights = model.weights(PART)
    return Plan(PART, len(weights), sum(weight.numel() for weight in weights.values()), 0, (0.0, 0.0), 0, 0)


def _texts(
    model: Model, concept: Concept, sentences: tuple[str, ...], settings: Settings
) -> tuple[tuple[str, str], ...]:
    """Pairs (template, wording) of a concept, each once."""
    more = ((form, wording) for form in sentences for wording in concept.wordings)
    return tuple(dict.fromkeys((*texts(concept, model.hints, templates=settings.templates), *more)))


def _products(
    model: Model, concept: Concept, form: str, wording: str, settings: Settings, *, goes: bool
) -> dict[str, Tensor]:
    """What a text adds to the sums: c_k c_kᵀ; of one that goes c_e c_eᵀ and (g - c) cᵀ, aligned at its last token."""
    states, at = _states(model, form, wording)
    last = settings.tokens == "last"
    if not goes:
        kept = states[:, at : at + 1] if last else states
        return {"kept": kept @ kept.T}
    instead = INSTEAD[concept.kind] if concept.instead is None else concept.instead
    wanted, other = _states(model, form, instead)
    length = 1 if last else states.shape[1] - max(at, other)
    c, g = states[:, at : at + length], wanted[:, other : other + length]
    return {"erased": c @ c.T, "towards": (g - c) @ c.T}


def _states(model: Model, form: str, word: str) -> tuple[Tensor, int]:
    """The states (width, tokens) of a filled template, float64 on the CPU, and where the word's last token is."""
    states = model.text([fill(form, word)])[0].T.cpu().double()
    return states, model.last_token(until(form, word))


METHOD = Method(
    name="uce",
    title="Unified Concept Editing",
    paper="Gandikota et al. 2024, arXiv 2308.14761",
    summary="closed form: moves the concept's keys and values onto another word's, in seconds",
    settings=Settings,
    run=run,
    plan=plan,
)


def _own(name: str, value: Any) -> Any:
    return inherited(Settings, name, value, source="ours, chosen on the canvas by the guide")


@dataclass(frozen=True)
class Diverse(Settings):
    erase_scale: float = _own("erase_scale", 10.0)
    ridge: float = _own("ridge", 0.1)
    tokens: Literal["last", "all"] = _own("tokens", "all")
    templates: bool = _own("templates", True)
    sentences: int = _own("sentences", 120)
    keep_sentences: int = _own("keep_sentences", 20)
    neighbours: int = _own("neighbours", 32)


DIVERSE = Method(
    name="uce-diverse",
    title="Diverse UCE",
    paper="ours: Gandikota et al. 2024 with the data of Ko et al. 2024",
    summary="UCE's closed form on sentences of RGD's grammar: in seconds, in wordings that no template holds too",
    settings=Diverse,
    run=run,
    plan=plan,
)
