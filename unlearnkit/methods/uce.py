"""UCE: Unified Concept Editing in Diffusion Models (Gandikota et al. 2024, arXiv 2308.14761), equation 7.

For each matrix W that reads the text (key or value of cross-attention), with columns c of text states and their wanted
outputs v* = W g:

    W' = (λ W + s_e Σ_e v*_e c_eᵀ + s_k Σ_k W c_k c_kᵀ) A⁻¹,    A = λ I + s_e Σ_e c_e c_eᵀ + s_k Σ_k c_k c_kᵀ

A is the same for every matrix. Subtracting W A on both sides leaves what is computed here: one float64 solve in all,
nothing inverted, and a change of rank no higher than the number of erased columns:

    W' - W = s_e W (G - C) (A⁻¹ C)ᵀ
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..method import Method, Plan
from ..model import Model
from ..schema import Concept, Request
from ..settings import setting
from ..training.descend import Job
from ..training.grammar import forms, read
from ..training.prompts import neighbours, texts, unerased
from ..wording import fill, until

__all__ = ["METHOD", "Settings", "change", "normal"]

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
        source="ours, after RGD's diverse sets; paper: 0",
    )
    keep_sentences: int = setting(
        0, "keep at most so many such sentences with each kept concept", low=0, source="ours; paper: 0"
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
    """The matrix A (width, width) of float64 columns ``erased`` and ``kept`` (width, n)."""
    eye = torch.eye(len(erased), dtype=torch.float64)
    return (
        settings.ridge * eye + settings.erase_scale * erased @ erased.T + settings.keep_scale * kept @ kept.T
    )


def change(w: Tensor, erased: Tensor, wanted: Tensor, solved: Tensor, *, scale: float) -> Tensor:
    """W' - W (out, width) for W, columns C and G (width, n) and ``solved`` = A⁻¹ C, all float64."""
    return scale * (w @ (wanted - erased)) @ solved.T


@torch.no_grad()
def run(model: Model, request: Request, settings: Settings, *, seed: int, job: Job) -> dict[str, Tensor]:
    """The new keys and values. The seed chooses the sentences, if any. Raises InputError for a singular A."""
    pairs = [
        _pair(model, concept, *text, settings)
        for concept in request.erase
        for text in _texts(model, request, concept, settings.sentences, settings, seed)
    ]
    erased, wanted = (torch.cat(columns, dim=1) for columns in zip(*pairs, strict=True))
    kept = _kept(model, request, settings, seed, like=erased)
    a = normal(erased, kept, settings)
    values = torch.linalg.eigvalsh(a)
    if values[0] <= 0 or values[-1] / values[0] > ILL:
        raise InputError(
            f"the equations are singular with ridge = {settings.ridge:g}: raise ridge, for example to 0.5"
        )
    solved = torch.linalg.solve(a, erased)
    weights = {}
    for done, (name, weight) in enumerate(model.weights(PART).items()):
        w = weight.detach().cpu().double()
        weights[name] = (w + change(w, erased, wanted, solved, scale=settings.erase_scale)).float()
        if job.progress:
            job.progress("solving", done + 1, len(model.weights(PART)))
    return weights


def plan(model: Model, request: Request, settings: Settings) -> Plan:
    weights = model.weights(PART)
    return Plan(PART, len(weights), sum(weight.numel() for weight in weights.values()), 0, (0.0, 0.0), 0, 0)


def _texts(
    model: Model, request: Request, concept: Concept, sentences: int, settings: Settings, seed: int
) -> tuple[tuple[str, str], ...]:
    """Pairs (template, wording) of a concept, each once."""
    found = texts(concept, model.hints, templates=settings.templates)
    if sentences:
        words = unerased(model, request)
        more = forms(read(settings.grammar), concept.kind, words, count=sentences, seed=seed)
        found += tuple((form, wording) for form in more for wording in concept.wordings)
    return tuple(dict.fromkeys(found))


def _pair(
    model: Model, concept: Concept, form: str, wording: str, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Columns C of a wording and G of what shall take its place, aligned at the concept's last token."""
    instead = INSTEAD[concept.kind] if concept.instead is None else concept.instead
    (erased, at), (wanted, other) = (_states(model, form, word) for word in (wording, instead))
    length = 1 if settings.tokens == "last" else erased.shape[1] - max(at, other)
    return erased[:, at : at + length], wanted[:, other : other + length]


def _kept(model: Model, request: Request, settings: Settings, seed: int, *, like: Tensor) -> Tensor:
    columns = [like[:, :0]]
    for concept in neighbours(model, request, settings.neighbours):
        for form, wording in _texts(model, request, concept, settings.keep_sentences, settings, seed):
            states, at = _states(model, form, wording)
            columns.append(states[:, at : at + 1] if settings.tokens == "last" else states)
    return torch.cat(columns, dim=1)


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
