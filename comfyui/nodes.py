"""Two nodes: an edit or LoRA of unlearnkit on a model, and concepts erased from the model in the graph by UCE.

A refusal is one line (``unlearnkit.InputError``), which ComfyUI shows on the node. Heavy imports wait for
the first use.
"""

from __future__ import annotations

from typing import Any

CATEGORY = "unlearnkit"
STRENGTH = {
    "default": 1.0,
    "min": -2.0,
    "max": 4.0,
    "step": 0.05,
    "tooltip": "1: as it was made. 0: nothing.",
}
LINES = {"multiline": True, "default": ""}


class ApplyEdit:
    """An edit (changed weights, guards) or an exported LoRA, applied with a strength."""

    CATEGORY, FUNCTION = CATEGORY, "apply"
    RETURN_TYPES = ("MODEL", "CLIP")
    DESCRIPTION = "An edit.safetensors or exported LoRA of unlearnkit, from the folder of LoRAs."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        import folder_paths

        files = (folder_paths.get_filename_list("loras"),)
        return {
            "required": {"model": ("MODEL",), "file": files, "strength": ("FLOAT", STRENGTH)},
            "optional": {"clip": ("CLIP", {"tooltip": "Needed where the text encoder was changed."})},
        }

    def apply(self, model: Any, file: str, strength: float, clip: Any = None) -> tuple[Any, Any]:
        import folder_paths

        from . import graph

        return graph.applied(model, clip, folder_paths.get_full_path_or_raise("loras", file), strength)


class EraseWithUCE:
    """Concepts erased from the model in the graph by a closed form, in seconds."""

    CATEGORY, FUNCTION = CATEGORY, "erase"
    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = (
        "UCE (arXiv 2308.14761): new keys and values of cross-attention. Stable Diffusion 1, 2 and XL."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "clip": ("CLIP",),
                "concepts": ("STRING", LINES | {"default": "van gogh", "tooltip": "One a line."}),
                "kind": (["object", "style"],),
                "strength": ("FLOAT", STRENGTH),
            },
            "optional": {
                "instead": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "A word, or nothing. Empty: nothing for an object, art for a style.",
                    },
                ),
                "keep": ("STRING", LINES | {"tooltip": "Words that stay, one a line."}),
                "erase_weight": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1e4, "step": 0.1}),
            },
        }

    def erase(
        self,
        model: Any,
        clip: Any,
        concepts: str,
        kind: str,
        strength: float,
        instead: str = "",
        keep: str = "",
        erase_weight: float = 1.0,
    ) -> tuple[Any]:
        from unlearnkit.schema import Concept, Request

        from . import graph

        erase, kept = ([line for line in text.splitlines() if line.strip()] for text in (concepts, keep))
        request = Request(
            tuple(Concept(name, kind, instead=instead.strip() or None) for name in erase),
            tuple(Concept(name, kind) for name in kept),
        )
        return (graph.erased(model, clip, request, erase_weight, strength),)


NODE_CLASS_MAPPINGS = {"UnlearnkitApplyEdit": ApplyEdit, "UnlearnkitEraseUCE": EraseWithUCE}
NODE_DISPLAY_NAME_MAPPINGS = {
    "UnlearnkitApplyEdit": "Apply edit or LoRA (unlearnkit)",
    "UnlearnkitEraseUCE": "Erase with UCE (unlearnkit)",
}
