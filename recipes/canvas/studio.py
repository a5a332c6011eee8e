"""What the stages of the training recipe share: the work folder, the device, the painted pictures, their captions."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

import networks
import painter
from pictures import Picture, caption, draw_picture
from unknown import Unknown, draw_unknown, paint_unknown
from unlearnkit.canvas import WEIGHTS, world
from unlearnkit.errors import InputError
from unlearnkit.families.borrowing import opened
from unlearnkit.seeds import derive

__all__ = ["CAPTIONS", "PAINTED", "Studio", "numbered", "paint_data", "sown", "write_array"]

PAINTED = {"train": 48_000, "seen": 36_000, "test": 5_000, "unknown": 9_000, "unknown-test": 1_000}
# seen: for the evaluators, held pairs included; unknown: for them too, pictures of nothing that the world knows
UNKNOWN = ("unknown", "unknown-test")
CAPTIONS = 4  # drawn for each training picture

Pixels = NDArray[np.uint8]


class Studio:
    """The work folder, the device and the data of one training of the canvas.

    folder: data and checkpoints; made if it is absent. steps: of every stage that trains. painted: pictures a part,
    see ``PAINTED``. device: "cpu" or "cuda". into: where ``ship`` puts what was trained.
    Raises InputError for a folder that cannot be made and a device that is not there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        steps: Mapping[str, int],
        painted: Mapping[str, int] = PAINTED,
        device: str = "cpu",
        seed: int = 1,
        into: Path = WEIGHTS,
    ) -> None:
        if device not in ("cpu", "cuda"):
            raise InputError(f"device {device!r} is unknown: choose cpu or cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("device 'cuda' cannot be used: torch finds no CUDA device here; choose cpu")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"folder {folder} cannot be made ({error.strerror}): choose another") from error
        self.folder, self.into, self.seed = folder, into, seed
        self.steps, self.painted = dict(steps), dict(painted)
        self.device = torch.device(device)

    def made(self, name: str, by: str) -> Path:
        """The path of what an earlier stage left in the folder. Raises InputError if that stage has not run."""
        path = self.folder / name
        if not path.exists():
            raise InputError(f"{path} is missing: run the stage {by} first")
        return path

    def pictures(self, part: str) -> list[Picture]:
        """What the part's pictures show; the same list every time."""
        rng = self._stream(part)
        return [draw_picture(rng, held_out_pairs=part != "train") for _ in range(self.painted[part])]

    def unknowns(self, part: str) -> list[Unknown]:
        """The same for a part without meaning."""
        rng = self._stream(part)
        return [draw_unknown(rng, held_out=part == "unknown-test") for _ in range(self.painted[part])]

    def _stream(self, part: str) -> random.Random:
        return random.Random(derive(self.seed, "pictures", part))

    def labels(self, part: str) -> tuple[Tensor, Tensor]:
        """Numbers of the part's objects (n,) and styles (n,), in the world's order; nothing comes last."""
        objects, styles = [*world.OBJECTS, world.NOTHING], [*world.STYLES, world.NOTHING]
        shown = self.unknowns(part) if part in UNKNOWN else self.pictures(part)
        return (
            torch.tensor([objects.index(p.object) for p in shown]),
            torch.tensor([styles.index(p.style) for p in shown]),
        )

    def captions(self, part: str, *, held_out: bool) -> list[list[str]]:
        """``CAPTIONS`` captions for each of the part's pictures. held: see ``pictures.caption``."""
        rng = random.Random(derive(self.seed, "captions", part))
        return [[caption(p, rng, held_out=held_out) for _ in range(CAPTIONS)] for p in self.pictures(part)]

    def data(self, part: str) -> Pixels:
        """The part's painted pictures, left on the disk: uint8 (n, 64, 64, 3)."""
        path = self.made(f"{part}.npy", by="data")
        data: Pixels = np.load(path, mmap_mode="r")
        if len(data) != self.painted[part]:
            raise InputError(
                f"{path} holds {len(data)} pictures, not {self.painted[part]}: "
                f"use another folder, or --painted {part}={len(data)}"
            )
        return data

    def images(self, data: Pixels, index: Tensor) -> Tensor:
        """The pictures of this index on the device: (n, 3, 64, 64) in [-1, 1]."""
        chosen = torch.from_numpy(np.ascontiguousarray(data[index.numpy()]))
        return chosen.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1

    def latents(self) -> Tensor:
        """The training pictures' scaled latents: (n, 4, 16, 16) on the CPU."""
        return torch.from_numpy(np.load(self.made("latents.npy", by="latents")))

    def sent(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """A batch from the CPU on the device, on its way while a GPU still works on the batch before."""
        if self.device.type == "cpu":
            return batch
        return tuple(one.pin_memory().to(self.device, non_blocking=True) for one in batch)

    def autocast(self) -> torch.autocast:
        """bfloat16, but on processors that would have to emulate it, tens of times as slowly."""
        able = self.device.type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX2"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=able)

    def tokenizer(self) -> CLIPTokenizer:
        return networks.make_tokenizer(self.folder / "tokenizer")

    def vae(self) -> AutoencoderKL:
        """The autoencoder, frozen: with the refined decoder if there is one."""
        refined = self.folder / "vae-refined"
        path = refined if refined.is_dir() else self.made("vae", by="vae")
        return AutoencoderKL.from_pretrained(path).to(self.device).requires_grad_(False)

    def text(self, kind: Any = CLIPTextModel) -> Any:
        """The text tower, frozen; kind: another class to open it in, see ``families.borrowing.opened``."""
        return opened(kind, self.made("text", by="text")).to(self.device).requires_grad_(False)


def paint_data(studio: Studio) -> None:
    """Paint every part that is not in the folder yet."""
    for part in studio.painted:
        path = studio.folder / f"{part}.npy"
        if not path.is_file():
            print(f"data: painting {studio.painted[part]} pictures for {part}", flush=True)
            if part in UNKNOWN:
                painted = painter.paint_many(studio.unknowns(part), paint_unknown, tick=_say)
            else:
                painted = painter.paint_many(studio.pictures(part), painter.paint, tick=_say)
            write_array(path, painted)


def _say(done: int, total: int) -> None:
    print(f"data {done}/{total}", flush=True)


def write_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write a .npy file whole or not at all, even when two processes do so at once."""
    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.replace(path)


def numbered(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """The distinct captions, and which of them each picture has: (pictures, captions a picture)."""
    number = {text: i for i, text in enumerate(dict.fromkeys(text for row in captions for text in row))}
    return list(number), torch.tensor([[number[text] for text in row] for row in captions])


@contextlib.contextmanager
def sown(seed: int) -> Iterator[None]:
    """Networks made within draw their first weights from this seed; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
