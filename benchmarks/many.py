"""What closed forms take for many concepts on matrices of Stable Diffusion 1.5's real size, on the CPU.

    python benchmarks/many.py                                                   every row of ROWS_OF_MANY
    python benchmarks/many.py --method uce [--concepts 1000] [--retained 0] [--threads 1] [--chain 100]

Weights are random: that changes neither time nor memory. The denoiser has the real 860 million weights, the text
encoder the size of CLIP ViT-L; only the latents are small (8 x 8), so that the check of a finished edit, a few
predictions, takes no longer than on a GPU. Prints seconds of each part, and by how much memory grew, and appends them
to ``results/many.jsonl``, where a row is made once. With one thread they are processor seconds, with more elapsed time.
With ``--chain`` the concepts are requests, one after another, without pictures.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rows import once
from sizes import BETAS, _vae, _words, unet_of_sd
from transformers import CLIPTextConfig, CLIPTextModel

from unlearnkit import chain
from unlearnkit.data.text_columns import last_columns
from unlearnkit.export import save_lora
from unlearnkit.methods import edit_for
from unlearnkit.methods.checking import check_names
from unlearnkit.model.hints import GENERAL
from unlearnkit.model.model import Model
from unlearnkit.model.places import hints_of
from unlearnkit.schema import Concept, Request

ROWS = Path(__file__).parent / "results" / "many.jsonl"
ROWS_OF_MANY = [  # method, concepts, retained, threads
    ("uce", 1000, 0, 1),
    *((name, 100, 1000, threads) for threads in (1, 2) for name in ("speed", "oce", "dp")),
]
BARE = {"dp": {"templates": False}}  # names alone, as the others take them
SECONDS: dict[str, float] = {}  # of each part, in order


def opened() -> Model:
    """SD 1.5's U-Net and a text encoder of CLIP ViT-L's size, with random weights."""
    torch.manual_seed(0)
    words = _words()
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        projection_dim=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    with torch.device("meta"):
        config = unet_of_sd(False).config
    unet = UNet2DConditionModel.from_config({**config, "sample_size": 8})
    pipe = StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=words,
        unet=unet,
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return Model(pipe, source="SD 1.5 with random weights", hints=GENERAL)


def named(count: int, first: int) -> tuple[Concept, ...]:
    """``count`` different names of three words, each a token, as the names of many people are."""
    words = list(load_words())
    size = len(words)
    numbers = range(first, first + count)
    return tuple(
        Concept(f"{words[n % size]} {words[n // size % size]} {words[n // size**2]}") for n in numbers
    )


def load_words() -> tuple[str, ...]:
    """The one-word objects of the canvas, whose tokenizer the model has."""
    return tuple(word for word in hints_of("canvas").objects if " " not in word)


def now() -> float:
    """Processor seconds with one thread, elapsed ones with more."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


@contextmanager
def timed(title: str) -> Iterator[None]:
    start = now()
    yield
    SECONDS[title] = round(now() - start, 2)
    print(f"{title:<40}{SECONDS[title]:8.2f} s", flush=True)


@contextmanager
def growth(found: dict[str, Any]) -> Iterator[None]:
    """Adds how far memory rose inside, in GB. Of Linux: the peak is set back to what there is."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    start = _peak()
    yield
    found["GB beyond the model"] = round((_peak() - start) / 2**20, 2)


def _peak() -> int:
    """The most memory so far, in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def at_once(model: Model, request: Request, method: str) -> dict[str, Any]:
    """All together, and the edit as a LoRA file that loses nothing."""
    found: dict[str, Any] = {}
    with timed("names checked"):
        check_names(model, request)
    with timed("text alone"):
        last_columns(model, [("{}", concept.name) for concept in (*request.erase, *request.keep)])
    with growth(found), timed("edit, all of it"):
        edit = edit_for(model, request, method=method, settings=BARE.get(method))
    with tempfile.TemporaryDirectory() as place, timed("LoRA"):
        told = save_lora(model, edit, Path(place) / "lora.safetensors", lose=0.0)
    return {"matrices": len(edit.weights), "rank": told.rank, "lost": told.lost, **found}


def one_by_one(model: Model, request: Request, method: str) -> dict[str, Any]:
    """As requests of a chain, without pictures: seconds of each, and what the chain takes on the disk."""
    took = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "chain"
        chain.init(folder, model, method=method, pictures=0)
        for concept in request.erase:
            start = now()
            chain.add(folder, concept, keep=request.keep, model=model)
            took.append(now() - start)
            print(f"request {len(took):4}{took[-1]:8.2f} s", flush=True)
        disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "seconds a request": round(mean(took), 2),
        "slowest": round(max(took), 2),
        "MB a request": round(disk / 1e6 / len(took), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--method", help="default: every row of ROWS_OF_MANY, each in a process of its own")
    parser.add_argument("--concepts", type=int, default=1000)
    parser.add_argument("--retained", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chain", type=int, default=0, help="so many requests, one concept each")
    given = parser.parse_args()
    if given.method is None:
        for method, *numbers in ROWS_OF_MANY:
            options = zip(("--concepts", "--retained", "--threads"), map(str, numbers), strict=True)
            words = ["--method", method, *(word for pair in options for word in pair)]
            subprocess.run((sys.executable, __file__, *words), check=True)
        return
    count = given.chain or given.concepts
    facts = {
        "method": given.method,
        "concepts": count,
        "retained": given.retained,
        "threads": given.threads,
        "chain": bool(given.chain),
    }

    def made() -> dict[str, Any]:
        torch.set_num_threads(given.threads)
        with timed("model with random weights"):
            model = opened()
        request = Request(named(count, 0), named(given.retained, count))
        found = (one_by_one if given.chain else at_once)(model, request, given.method)
        return {"seconds": SECONDS, **found}

    once(ROWS, facts, made)


if __name__ == "__main__":
    main()
