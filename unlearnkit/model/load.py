"""Open a model by name."""

from __future__ import annotations

from pathlib import Path

import torch

from .. import families
from ..errors import ModelError, quoted
from ..families.opening import checked_device, checked_dtype, open_pipeline
from ..io.reading import read_json
from . import hints
from .edit import Edit
from .model import Model
from .places import folder_of, hints_of, is_canvas
from .restore import steady

__all__ = ["load", "note_of"]

FEW_STEPS = ("LCMScheduler", "TCDScheduler")  # schedulers of distilled models


@steady()
def load(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    edit: Edit | None = None,
    variant: str | None = None,
) -> Model:
    """Open a model for editing.

    source: ``"canvas"`` or one of its relatives, a diffusers folder, a hub id, or a single ``.safetensors`` file.
    device: default: a GPU if there is one (each process its own), else the CPU. dtype: default: the edit's or float32.
    edit: to apply later. The model is opened in the edit's dtype, checked against the edit, and then cast to ``dtype``.
    variant: of the weights' files, such as ``"fp16"``. Default: the plain files, or the only variant.
    Raises ModelError for a model that is missing, damaged or unsupported, InputError for a bad device or dtype,
    EditError for an edit made from another model.
    """
    made = edit.facts.get("dtype") if edit else None
    dtype, device = checked_dtype(dtype or made or torch.float32), checked_device(device)
    folder = folder_of(source)
    if is_canvas(source) and not folder.is_dir():
        raise ModelError(f"the weights of {source} are not installed: reinstall the package")
    place = str(folder) if folder.exists() else str(source)
    pipe = open_pipeline(place, dtype=checked_dtype(made or dtype), variant=variant).to(device)
    model = Model(pipe, source=str(source), hints=hints_of(source), variant=variant)
    if edit:
        model.check(edit)
    return model if model.dtype == dtype else model.cast(dtype)


def note_of(source: str | Path) -> str:
    """A one-line note for a folder with a distilled model and no hints; else empty."""
    folder = folder_of(source)
    files = [folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"]
    if (folder / hints.FILE).exists() or not all(file.is_file() for file in files):
        return ""
    index, scheduler = (read_json(file, what="file", kind=dict, error=ModelError) for file in files)
    kind, spacing = scheduler.get("_class_name"), scheduler.get("timestep_spacing")
    trailing = spacing == "trailing" and not scheduler.get("rescale_betas_zero_snr")
    family = next((one for one in families.FAMILIES if index.get("_class_name") in one.PIPELINES), None)
    if family is None or family.DENOISER != "unet" or not (kind in FEW_STEPS or trailing):
        return ""
    steps, guidance = family.sampling(None)
    return (
        f"{quoted(str(source))} looks distilled ({quoted(kind)}, spacing {quoted(spacing)}): without hints it is drawn "
        f"in {steps} steps with guidance {guidance:g}; if few steps suit it, write them into its {hints.FILE}: "
        "[sampling] steps = 4, guidance = 1.0"
    )
