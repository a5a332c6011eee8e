"""Files that the page shows: the erased grid, the report, a comparison. Nothing else of the folder is served."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from starlette.responses import Response

from ..errors import InputError, UnlearnError
from ..io.files import member
from ..io.reading import parse_json, read_bytes
from .commands import Form
from .templates import REPORTS
from .workspace import Workspace, pick

__all__ = ["COMPARISON", "exported", "served"]

COMPARISON = "comparison"  # where unlearnkit compare writes
MOST = 64 * 2**20  # bytes
HEADER = 32 * 2**20  # bytes of a .safetensors file's header
PNG = b"\x89PNG\r\n\x1a\n"


def served(form: Form, workspace: Workspace) -> Response:
    """A file of a run or a chain by its fixed name. Raises InputError for anything else."""
    what = form.get("what", "")
    if what == "grid":
        data = read_bytes(member(_run(form, workspace), "grid.png"), what="grid", most=MOST)
        if not data.startswith(PNG):
            raise InputError("grid.png is no picture: make the run again in another folder")
        return Response(data, media_type="image/png")
    folders = {
        "report": lambda: member(_run(form, workspace), "report.html"),
        "chain": lambda: member(pick(form.get("chain", ""), workspace.chains, "chain"), "report.html"),
        "comparison": lambda: member(workspace.folder, COMPARISON, "compare.html"),
    }
    data = read_bytes(pick(what, folders, "file")(), what="page", most=MOST)
    # a page in the folder may be a stranger's: only our own script may run in it, and away from this origin
    script = (REPORTS / "page.js").read_bytes()
    own = base64.b64encode(hashlib.sha256(script).digest()).decode()
    policy = (
        f"sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{own}'"
    )
    return Response(data, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy})


def exported(path: Path) -> dict[str, Any]:
    """What a ``.safetensors`` file says that it is: ``what``, ``loads``, and whether unlearnkit wrote it (``ours``)."""
    other = {"what": "A file", "loads": "unknown: unlearnkit did not write it", "ours": False}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(length) if length < HEADER else b"", kind=dict, where="header")
        facts = parse_json(header["__metadata__"]["unlearnkit"], kind=dict, where="facts")
    except (OSError, UnlearnError, KeyError, TypeError):
        return other
    if "rank" in facts:
        tools = "diffusers (load_lora_weights), ComfyUI, tools with kohya's names; on the untouched model"
        return {"what": f"A LoRA of rank {facts['rank']}", "loads": tools, "ours": True}
    return {"what": "An edit or a changed checkpoint", "loads": "what loads the original", "ours": True}


def _run(form: Form, workspace: Workspace) -> Path:
    return pick(form.get("run", ""), workspace.runs, "run").path
