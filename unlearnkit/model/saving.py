"""Write a whole diffusers pipeline, and check that it opens and draws before it takes its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EditError, ModelError, printable, quoted
from ..families.opening import open_pipeline, quiet
from ..families.schedules import fewest
from ..io.files import new_folder, set_permissions
from ..io.reading import read_json
from ..io.tensors import stamp
from . import hints, older
from .edit import Edit
from .networks import Networks
from .provenance import FILE, provenance
from .restore import networks
from .sampling import drawn

__all__ = ["check", "save", "write"]

CONFIGURATIONS = ("model_index.json", "config.json", "scheduler_config.json")
TEXT = "A photo of 12 Kätzchen, don't!"  # for every tokenizer
STEPS = 2  # of the test image


def save(model: Networks, folder: Path, edit: Edit | None) -> None:
    """What ``Model.save`` does."""
    if edit and edit.hooks:
        raise EditError(
            "a guard acts while the model runs, and a pipeline's folder holds only weights: keep "
            "edit.safetensors, and draw with unlearnkit generate --edit"
        )
    with new_folder(folder) as partial, model.wearing(edit or {}):
        write(model, partial, edit)
        check(model, partial)


def write(model: Networks, folder: Path, edit: Edit | None = None) -> None:
    """Write the pipeline with its present weights into an empty folder, for all releases of diffusers and transformers.

    edit: the applied edit; its provenance goes into a file and into the headers of the changed weights' files.
    """
    with quiet():
        model.pipe.save_pretrained(folder)
    model.family.saved(model.pipe, folder)
    for name, part in model.pipe.components.items():
        older.add(part, folder / name)
    for file in folder.rglob("*.json"):
        _nameless(file)
    if edit:
        facts = provenance(edit)
        text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
        for part in {model.family.DENOISER, *edit.components}:
            for file in (folder / part).glob("*.safetensors"):
                stamp(file, facts)
    for file in folder.rglob("*.safetensors"):
        set_permissions(file)
    if model.hints.text:
        (folder / hints.FILE).write_text(model.hints.text, encoding="utf-8")


def _nameless(file: Path) -> None:
    """Remove the local path of the model from a configuration."""
    if file.name in CONFIGURATIONS:
        data = read_json(file, what="configuration", kind=dict)
        if data.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def check(model: Networks, folder: Path) -> None:
    """Open the folder, compare every weight with memory, and draw an image.

    Raises ModelError if it does not open, a weight differs, or the image is not finite.
    """
    dtypes = {next(part.parameters()).dtype for part in networks(model.pipe)}
    alike = len(dtypes) == 1
    try:
        pipe = open_pipeline(str(folder), dtype=dtypes.pop() if alike else torch.float32)
    except ModelError as error:
        cause = str(error).replace(str(folder), "the saved folder")
        raise ModelError(f"the pipeline does not open once it is saved, and is not kept: {cause}") from None
    for name, part in sorted(model.pipe.components.items()):
        if isinstance(part, nn.Module):
            _same(name, part.state_dict(), getattr(pipe, name).state_dict())
            if alike:
                setattr(pipe, name, part)  # so drawing takes no more memory
        elif hasattr(part, "vocab_files_names"):
            text, again = " ".join([TEXT, *(one.name for one in model.hints.words)]), getattr(pipe, name)
            with quiet():  # the text may be longer than a prompt
                differs = part(text).input_ids != again(text).input_ids
            if differs or part.get_vocab() != again.get_vocab():
                raise ModelError(f"{name} reads text in another way once it is saved: the folder is not kept")
    try:
        opened = Networks(pipe, source="the saved folder", hints=model.hints)
        prompt = next((one.name for one in model.hints.words), "")
        with _finite(opened):
            steps = fewest(pipe.scheduler, min(STEPS, opened.num_timesteps))
            list(drawn(opened, [prompt], [0], steps, None, None, None, "pil"))
    except ModelError as error:
        if error.__cause__ is None:
            raise
        cause = printable(" ".join(str(error.__cause__).split()))[:200]
        raise ModelError(f"the pipeline does not draw once it is saved, and is not kept: {cause}") from error


def _same(part: str, before: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    for name in (*before, *saved):
        if name not in before or name not in saved:
            state = "loses" if name in before else "gains"
            raise ModelError(
                f"{part} {state} the weight {quoted(name)} once it is saved, so the folder is not kept: merge an "
                "adapter into its network first, such as with fuse_lora and unload_lora_weights"
            )
        again = saved[name].to(before[name].device)
        if not torch.equal(again, before[name].to(again.dtype)):
            raise ModelError(
                f"weight {quoted(name)} of {part} is another one once it is saved: the folder is not kept"
            )


@contextmanager
def _finite(model: Networks) -> Iterator[None]:
    """Raise ModelError if the denoiser or the VAE's decoder gives a number that is not finite."""
    watched = {model.family.DENOISER: model.denoiser}
    if decoder := getattr(getattr(model.pipe, "vae", None), "decoder", None):
        watched["the VAE's decoder"] = decoder

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            values = output if isinstance(output, Tensor) else output[0]
            if not torch.isfinite(values).all():
                raise ModelError(
                    f"the saved pipeline draws nothing: {printable(name)} gives numbers that are not finite in "
                    f"{model.precision}; the folder is not kept"
                )

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in watched.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
