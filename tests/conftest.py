"""One torch thread, no network, a cache of their own, and toy models for every test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

import pytest

import alone

# torch is loaded by the tests: the process that leads several workers runs none
if TYPE_CHECKING:
    from unlearnkit.model.model import Model


@pytest.fixture(scope="session", autouse=True)
def _one_thread_and_a_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["UNLEARNKIT_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the toy tokenizer's files."""
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="session")
def make(words: Path) -> Callable[..., Model]:
    """``make(prediction=..., seed=..., dtype=...)``: a fresh toy model."""
    import tiny
    from unlearnkit.model.model import Model

    def made(*, dtype: Any = None, **changes: Any) -> Model:
        pipe = tiny.pipeline(words, **changes)
        return Model(pipe.to(dtype=dtype) if dtype else pipe, source="tiny", hints=tiny.HINTS)

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
    import saved

    return saved.evaluated(tmp_path_factory.mktemp("report"))
