"""Fetch a pipeline from the hub: its index, which is checked, then the files of the components it names."""

from __future__ import annotations

import os
import re
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from torch import nn

from ..errors import ModelError, quoted, reason
from .components import chosen_variant, variants
from .index import INDEX, checked_index, component_class, is_present

__all__ = ["download", "fetched", "is_id", "is_unreachable", "offline"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
KINDS = (".json", ".txt", ".model")  # a component's files other than weights


def is_id(source: str) -> bool:
    """Whether this could name a model on the hub."""
    return len(source) <= 200 and bool(HUB_ID.fullmatch(source))


def offline() -> bool:
    """Whether the hub is switched off by the environment."""
    return huggingface_hub.constants.HF_HUB_OFFLINE or any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "DIFFUSERS_OFFLINE")
    )


def fetched(source: str, variant: str | None) -> Path:
    """The folder of this model in the local cache, filled from the hub. Raises ModelError if it cannot be had.

    The index comes first. After it is checked, the settings and weights of its components follow.
    """
    local = is_unreachable(source)
    file = download(source, INDEX, local=local)
    index, folder = checked_index(file, source), file.parent
    if local:
        return folder
    try:
        info = huggingface_hub.HfApi().model_info(source, revision=folder.name)
    except Exception as error:  # the client's errors differ by release and by cause
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None and status < 500:
            raise ModelError(f"model {quoted(source)} cannot be fetched: the hub answers {status}") from error
        return folder  # the hub cannot be reached: use what the cache has
    names = [file.rfilename for file in info.siblings or ()]
    for part, entry in index.items():
        if not is_present(entry):
            continue
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        weights = variants(inside)
        files = [name for name in inside if name.endswith(KINDS) and name not in weights]
        if issubclass(component_class(part, entry), nn.Module):
            chosen = chosen_variant(inside, variant, f"folder {part!r} of model {quoted(source)}")
            files += [name for name, its_variant in weights.items() if its_variant == chosen]
        for name in files:
            if "/" not in name:
                download(source, f"{part}/{name}", folder.name, local=False)
    return folder


def download(source: str, name: str, revision: str | None = None, *, local: bool) -> Path:
    """A file of a repository on the hub, in the local cache. Raises ModelError if it cannot be had.

    local: look only in the cache.
    """
    where = f"model {quoted(source)}"
    try:
        return Path(huggingface_hub.hf_hub_download(source, name, revision=revision, local_files_only=local))
    except LocalEntryNotFoundError:
        if offline():
            why = f"is no path here, and the local cache does not have it ({name}; the hub is switched off here)"
        else:
            why = (
                "is not in the local cache, and the hub cannot be reached: check the connection and try again"
            )
    except GatedRepoError:
        why = "is gated: accept its terms on its page on the hub, and log in with hf auth login"
    except RepositoryNotFoundError:
        why = "is no path here, and the hub has no such model that you may read: check the name, or log in"
    except EntryNotFoundError:
        why = f"has no {name} on the hub: name a whole diffusers pipeline"
    except HFValidationError:
        why = "is no path here, and no name that the hub allows"
    except OSError as error:
        why = f"cannot be fetched from the hub: {reason(error)}"
    raise ModelError(f"{where} {why}")


def is_unreachable(source: str) -> bool:
    """Whether the hub is switched off or does not answer. Without this its client retries for half a minute a file."""
    if offline():
        return True
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(source, INDEX))
    except (HfHubHTTPError, HFValidationError):
        return False
    except Exception:  # networks fail in many ways
        return True
    return False
