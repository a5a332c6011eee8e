"""An edit as other tools take it: a LoRA file, or the checkpoint that they load with the changed tensors in place."""

from __future__ import annotations

from .checkpoint import save_checkpoint
from .held import Held
from .lora import save_lora

__all__ = ["Held", "save_checkpoint", "save_lora"]
