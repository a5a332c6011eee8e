"""An edit as a LoRA file, which diffusers, ComfyUI and tools with kohya's names load onto the base model.

A change D of a matrix is projected onto its leading singular vectors: B = U_r, A = U_rᵀ D, the nearest matrix of rank r
(Eckart and Young, 1936). The rank of a closed form's change is at most the number of texts that it moved, and that
of low-rank training its own: such edits fit without loss. A U-Net has kohya's names (see ``names``), a transformer
PEFT's after ``transformer.``. ComfyUI's comfy/lora.py and diffusers' ``load_lora_weights`` read both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import seeds
from ..errors import InputError
from ..io import tensors
from ..io.tick import Advance
from ..model.edit import Edit
from ..model.encoders import encoders
from ..model.model import Model
from ..model.provenance import provenance
from .names import blocks, encoder, is_outer, kohya
from .report import LOSE, ExportReport, base_values, check_loss, inner, output_path, percent, share_lost

__all__ = ["save_lora"]

SKETCH = 64


def save_lora(
    model: Model,
    edit: Edit,
    path: str | Path,
    *,
    rank: int | None = None,
    lose: float = LOSE,
    tick: Advance | None = None,
) -> ExportReport:
    """Write the edit as a LoRA file of the model, in fp32, whole or not at all.

    rank: at most a matrix's own; None: the smallest that loses no more than ``lose``. lose: share of the change that
    may be lost, in [0, 1], including that of biases and norms, which a LoRA cannot contain. tick: called as
    ``tick(done, total)`` after each matrix. Raises InputError if more would be lost, for a model whose pipeline loads
    no LoRA, and if ``path`` exists; EditError for an edit of another model.
    """
    if not hasattr(model.pipe, "load_lora_weights"):
        raise InputError(
            f"a {type(model.pipe).__name__} of diffusers loads no LoRA: use the run's pipeline folder"
        )
    path = output_path(path)
    if rank is not None and rank < 1:
        raise InputError(f"rank {rank} is out of range: use 1 or more")
    base, lose = base_values(model, edit), check_loss(lose)
    left = [name for name, weight in base.items() if weight.dim() < 2 or _is_t5(name)]
    squares = {name: inner(change, change) for name, change in _changes(edit, base)}
    total, without = sum(squares.values()), sum(squares[name] for name in left)
    if without > lose * total:
        raise InputError(_too_much(0, share_lost(total - without, total), lose, left))
    room = (lose * total - without) / (total - without) if total > without else 0.0
    factored: dict[str, tuple[Tensor, Tensor]] = {}
    explained, matrices = 0.0, {name: weight for name, weight in base.items() if name not in left}
    for name, change in _changes(edit, matrices):
        up, down = factors(change.flatten(1), rank, room)
        explained += inner(up @ down, change)
        factored[name] = up.cpu(), down.cpu()
        if tick:
            tick(len(factored), len(matrices))
    reached, lost = max((up.shape[1] for up, _ in factored.values()), default=0), share_lost(explained, total)
    if lost > lose:
        raise InputError(_too_much(reached, lost, lose, left))
    # both of SDXL's ways of counting blocks in one file would be one too many for diffusers
    large = type(model.pipe).__name__.startswith("StableDiffusionXL")
    fronts = blocks(model.denoiser) if large else {}
    named: dict[str, Tensor] = {}
    for name, (up, down) in factored.items():
        named |= _named(model, name, up, down, base[name].shape, reached, fronts)
    tensors.write(path, named, provenance(edit) | {"rank": reached, "lost": lost}, new=True)
    outer = [name for name in factored if name.startswith("unet.") and is_outer(name.removeprefix("unet."))]
    share = sum(squares[name] for name in outer) / total if total else 0.0
    known = model.family.DENOISER == "unet" and bool(fronts or not large)
    return ExportReport(path, len(factored), reached, lost, tuple(left), tuple(outer), share, known)


def _changes(edit: Edit, base: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The edit's change of each weight, fp32, one at a time to save memory."""
    for name, weight in base.items():
        yield name, edit.weights[name].to(weight.device) - weight.float()


def factors(change: Tensor, rank: int | None, room: float) -> tuple[Tensor, Tensor]:
    """B (out, r) and A (r, in), fp32, whose product is the best approximation of ``change`` (out, in) of rank r.

    r: the smallest that loses no more than ``room`` of |D|², at most ``rank``. A large matrix is first projected onto a
    sketch of its range (Halko, Martinsson and Tropp 2011, arXiv 0909.4061), which suffices for small r.
    """
    tall = len(change) > change.shape[1]
    wide = (change.T if tall else change).double()
    enough = (1 - room) * inner(wide, wide)
    for span in (_sketch(wide), None):
        projected = wide if span is None else span.T @ wide
        values, vectors = torch.linalg.eigh(projected @ projected.T)  # the squares of singular values, rising
        energy = values.flip(0).cumsum(0)
        if energy[-1] >= enough:
            break
    r = min(int((energy < enough).sum()) + 1, rank or len(energy), len(energy))
    lead = vectors.flip(1)[:, :r]
    lead = lead if span is None else span @ lead
    up, down = lead.float(), (lead.T @ wide).float()
    return (down.T, up.T) if tall else (up, down)


def _sketch(wide: Tensor) -> Tensor | None:
    """Orthonormal columns that span nearly the range of ``wide``, for a large matrix; None for a small one."""
    if len(wide) <= 4 * SKETCH:
        return None
    draws = torch.randn((wide.shape[1], SKETCH), generator=seeds.stream(0, "sketch"), dtype=torch.float64)
    span = torch.linalg.qr(wide @ draws.to(wide.device)).Q
    basis: Tensor = torch.linalg.qr(wide @ (wide.T @ span)).Q
    return basis


def _is_t5(name: str) -> bool:
    """Whether a weight belongs to a T5, for which no tool loads a LoRA."""
    return name.startswith("text_encoder") and ".block." in name


def _named(
    model: Model, name: str, up: Tensor, down: Tensor, shape: torch.Size, rank: int, fronts: dict[str, str]
) -> dict[str, Tensor]:
    """The factors of one weight under other tools' names; A contains a convolution's kernel.

    All are padded with zeros to one rank, because loaders disagree on the scale of several ranks.
    """
    up, down = pad(up, (0, rank - up.shape[1])), pad(down, (0, 0, 0, rank - len(down)))
    component, _, rest = name.partition(".")
    module = rest.removesuffix(".weight")
    if len(shape) > 2:
        up, down = up.view(*up.shape, *(1,) * (len(shape) - 2)), down.view(rank, *shape[1:])
    peft = model.family.DENOISER != "unet"
    theirs = f"{component}.{module}" if peft else kohya(module, fronts)
    if component != model.family.DENOISER:
        large = "text_encoder_2" in encoders(model.pipe)
        theirs = encoder(component, module, large=large, peft=peft)
    if not peft:
        return {
            f"{theirs}.lora_up.weight": up,
            f"{theirs}.lora_down.weight": down,
            f"{theirs}.alpha": torch.tensor(float(rank)),
        }
    return {f"{theirs}.lora_B.weight": up, f"{theirs}.lora_A.weight": down}


def _too_much(rank: int, lost: float, lose: float, left: list[str]) -> str:
    """rank: 0 where no rank would be enough."""
    what, mend = (f"rank {rank}", "raise the rank, ") if rank else ("a LoRA", "")
    if left:
        what += f" without the {len(left)} biases, norms and the like that no LoRA contains ({left[0]}, ...)"
    return (
        f"{what} loses {percent(lost)} of the change, more than {percent(lose)}: let more be lost (lose), {mend}or put "
        "the edit into a checkpoint"
    )
