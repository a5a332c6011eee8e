"""One torch thread, no network, a cache of their own, and toy models for every test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

import alone
import pytest
import torch

import saved
import tiny
from unlearnkit.model.hints import Hints
from unlearnkit.model.model import Model

HINTS = Hints(
    steps=3,
    guidance=4.0,
    objects=("cat", "dog", "bear", "car"),
    styles=("van gogh", "neon"),
    templates={"object": ("a photo of a {}", "{} in a picture"), "style": ("art by {}",)},
)


def pytest_configure() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARNKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the toy tokenizer's files."""
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="session")
def make(words: Path) -> Callable[..., Model]:
    """``make(prediction=..., seed=..., dtype=...)``: a fresh toy model."""

    def made(*, dtype: torch.dtype = torch.float32, **changes: object) -> Model:
        return Model(tiny.pipeline(words, **changes).to(dtype=dtype), source="tiny", hints=HINTS)

    return made


@pytest.fixture
def model(make: Callable[..., Model]) -> Model:
    """A fresh toy model that predicts epsilon."""
    return make()


@pytest.fixture(scope="session")
def draw_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[alone.Draw]:
    """``draw_alone(folder, prompt)``: what plain diffusers draws without unlearnkit, in a process of its own."""
    with alone.diffusers_alone(tmp_path_factory.mktemp("alone")) as draw:
        yield draw


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and evaluated run; treat it as read-only. Its prompts are in ``rows.csv`` beside it."""
    return saved.evaluated(tmp_path_factory.mktemp("report"))
