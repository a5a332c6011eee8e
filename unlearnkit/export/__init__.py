"""Export of an edit for other tools: as a LoRA file, or as a checkpoint with the changed tensors."""

from __future__ import annotations

from .checkpoint import save_checkpoint
from .lora import save_lora
from .report import ExportReport

__all__ = ["ExportReport", "save_checkpoint", "save_lora"]
