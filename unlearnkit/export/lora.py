"""An edit as a LoRA file, which diffusers, ComfyUI and the UIs that know kohya's names load onto the untouched model.

A change D of a matrix is projected onto its leading singular vectors: B = U_r, A = U_rᵀ D, the nearest matrix of rank r
(Eckart and Young, 1936). A closed form's change has no more rank than texts that it moved, a low-rank training's no
more than its own: such an edit fits without loss. Of a U-Net the names are kohya's (see ``names``), of a transformer
those of PEFT behind ``transformer.``: what ComfyUI's comfy/lora.py and diffusers' ``load_lora_weights`` both read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import seeds
from ..errors import InputError
from ..io import tensors
from ..models.edit import Edit
from ..models.encoders import encoders
from ..models.model import Model
from ..models.provenance import provenance
from .held import LOSE, Held, changes, checked, inner, missing, percent, target
from .names import blocks, encoder, is_outer, kohya

__all__ = ["save_lora"]

SKETCH = 64


def save_lora(
    model: Model,
    edit: Edit,
    path: str | Path,
    *,
    rank: int | None = None,
    lose: float = LOSE,
    tick: Callable[[int, int], None] | None = None,
) -> Held:
    """Write the edit as a LoRA file of the model, in fp32, whole or not at all.

    rank: at most that of a matrix; unless told, the least with which no more is lost than may be. lose: how much of the
    change (0 to 1) may be lost; that of biases and norms, which no LoRA holds, counts in. tick: called as ``tick(done,
    total)`` after each matrix. Raises InputError where more would be lost, for a model whose pipeline loads no LoRA,
    and where ``path`` exists already; EditError for an edit of another model.
    """
    if not hasattr(model.pipe, "load_lora_weights"):
        raise InputError(
            f"a {type(model.pipe).__name__} of diffusers loads no LoRA: use the run's pipeline folder"
        )
    path = target(path)
    if rank is not None and rank < 1:
        raise InputError(f"rank {rank} is out of range: use 1 or more")
    own, lose = changes(model, edit), checked(lose)
    left = [name for name, weight in own.items() if weight.dim() < 2 or _is_t5(name)]
    squares = {name: inner(change, change) for name, change in _changes(edit, own)}
    whole, without = sum(squares.values()), sum(squares[name] for name in left)
    if without > lose * whole:
        raise InputError(_too_much(0, missing(whole - without, whole), lose, left))
    room = (lose * whole - without) / (whole - without) if whole > without else 0.0
    found: dict[str, tuple[Tensor, Tensor]] = {}
    held, matrices = 0.0, {name: weight for name, weight in own.items() if name not in left}
    for name, change in _changes(edit, matrices):
        up, down = factors(change.flatten(1), rank, room)
        held += inner(up @ down, change)
        found[name] = up.cpu(), down.cpu()
        if tick:
            tick(len(found), len(matrices))
    reached, lost = max((up.shape[1] for up, _ in found.values()), default=0), missing(held, whole)
    if lost > lose:
        raise InputError(_too_much(reached, lost, lose, left))
    # both of SDXL's ways of counting blocks in one file would be one too many for diffusers
    large = type(model.pipe).__name__.startswith("StableDiffusionXL")
    fronts = blocks(model.denoiser) if large else {}
    named: dict[str, Tensor] = {}
    for name, (up, down) in found.items():
        named |= _named(model, name, up, down, own[name].shape, reached, fronts)
    tensors.write(path, named, provenance(edit) | {"rank": reached, "lost": lost}, new=True)
    outer = [name for name in found if name.startswith("unet.") and is_outer(name.removeprefix("unet."))]
    share = sum(squares[name] for name in outer) / whole if whole else 0.0
    known = model.family.DENOISER == "unet" and bool(fronts or not large)
    return Held(path, len(found), reached, lost, tuple(left), tuple(outer), share, known)


def _changes(edit: Edit, own: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """What the edit adds to each weight, in fp32, one after the other: all at once they are as large as the edit."""
    for name, weight in own.items():
        yield name, edit.weights[name].to(weight.device) - weight.float()


def factors(change: Tensor, rank: int | None, room: float) -> tuple[Tensor, Tensor]:
    """B (out, r) and A (r, in), fp32, whose product is nearest to ``change`` (out, in) of its rank.

    r: the least that loses no more than ``room`` of |D|², at most ``rank``. A large matrix is looked at through a
    sketch of its range first (Halko, Martinsson and Tropp 2011, arXiv 0909.4061), which is enough where r is small.
    """
    tall = len(change) > change.shape[1]
    wide = (change.T if tall else change).double()
    enough = (1 - room) * inner(wide, wide)
    for span in (_sketch(wide), None):
        seen = wide if span is None else span.T @ wide
        values, vectors = torch.linalg.eigh(seen @ seen.T)  # the squares of singular values, rising
        energy = values.flip(0).cumsum(0)
        if energy[-1] >= enough:
            break
    r = min(int((energy < enough).sum()) + 1, rank or len(energy), len(energy))
    lead = vectors.flip(1)[:, :r]
    lead = lead if span is None else span @ lead
    up, down = lead.float(), (lead.T @ wide).float()
    return (down.T, up.T) if tall else (up, down)


def _sketch(wide: Tensor) -> Tensor | None:
    """Orthonormal columns that span nearly the range of ``wide``, if it has little more than so many dimensions."""
    if len(wide) <= 4 * SKETCH:
        return None
    draws = torch.randn((wide.shape[1], SKETCH), generator=seeds.stream(0, "sketch"), dtype=torch.float64)
    span = torch.linalg.qr(wide @ draws.to(wide.device)).Q
    found: Tensor = torch.linalg.qr(wide @ (wide.T @ span)).Q
    return found


def _is_t5(name: str) -> bool:
    """Whether a weight is of a T5, for which no tool takes a LoRA."""
    return name.startswith("text_encoder") and ".block." in name


def _named(
    model: Model, name: str, up: Tensor, down: Tensor, shape: torch.Size, rank: int, fronts: dict[str, str]
) -> dict[str, Tensor]:
    """The factors of one weight under the names that other tools know; a convolution's have its kernel in A.

    All have one rank, with zeros where less is needed: loaders read the scale of several ranks in several ways.
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
        what += f" without the {len(left)} biases, norms and the like that no LoRA holds ({left[0]}, ...)"
    return (
        f"{what} loses {percent(lost)} of the change, more than {percent(lose)}: let more be lost (lose), {mend}or put "
        "the edit into a checkpoint"
    )
