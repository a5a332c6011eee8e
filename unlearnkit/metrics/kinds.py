"""The networks of transformers that evaluators may be: their classes, and the weights that an evaluator never uses."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CLASSIFIER", "CLIP", "FEATURE", "POOLER", "TEACHER", "NetworkRole", "matches"]

_PREFIXES = {
    "beit": "Beit",
    "bit": "Bit",
    "clip": "CLIP",
    "convnext": "ConvNext",
    "convnextv2": "ConvNextV2",
    "cvt": "Cvt",
    "data2vec-vision": "Data2VecVision",
    "deit": "DeiT",
    "dinov2": "Dinov2",
    "dinov2_with_registers": "Dinov2WithRegisters",
    "dinov3_convnext": "DINOv3ConvNext",
    "dinov3_vit": "DINOv3ViT",
    "efficientnet": "EfficientNet",
    "focalnet": "FocalNet",
    "hiera": "Hiera",
    "ijepa": "IJepa",
    "levit": "Levit",
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilevit": "MobileViT",
    "poolformer": "PoolFormer",
    "pvt": "Pvt",
    "regnet": "RegNet",
    "resnet": "ResNet",
    "segformer": "Segformer",
    "siglip": "Siglip",
    "swin": "Swin",
    "swinv2": "Swinv2",
    "vit": "ViT",
    "vit_msn": "ViTMSN",
}
# classes of transformers by the model_type in config.json; no others are opened
CLASSIFIERS = {
    kind: f"{prefix}ForImageClassification"
    for kind, prefix in _PREFIXES.items()
    if not kind.startswith("dinov3")
}
FEATURES = {
    **{kind: f"{prefix}Model" for kind, prefix in _PREFIXES.items()},
    **{"clip": "CLIPVisionModel", "clip_vision_model": "CLIPVisionModel"},
    **{"siglip": "SiglipVisionModel", "siglip_vision_model": "SiglipVisionModel"},
}
TEACHER = "WithTeacher"  # a second class that a checkpoint of DeiT's or LeViT's may name

# weights that no evaluator uses: buffers of counts and positions, the mask token of pretraining
_NEVER = (r"(^|\.)(position_ids|num_batches_tracked|relative_position_index)$", r"(^|\.)mask_token$")
_TEXT = (r"^text_model\.", r"^(text|visual)_projection\.", r"^logit_(scale|bias)$")
_HEADS = r"^(classifier|cls_classifier|distillation_classifier|head|fc|decode_head|decoder)\."
POOLER = r"^([a-z0-9_]+\.)?pooler\."


@dataclass(frozen=True)
class NetworkRole:
    """What a network is opened as. name: in messages. classes: by model type.

    absent: patterns of weights that may be missing from the files. extra: of weights that may be left over in them.
    pooler: whether the evaluator works without the pooler, if all of its weights are missing.
    """

    name: str
    classes: dict[str, str]
    absent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    pooler: bool = False


CLASSIFIER = NetworkRole("a classifier", CLASSIFIERS, _NEVER, (*_NEVER, POOLER))
FEATURE = NetworkRole("a network of features", FEATURES, _NEVER, (*_NEVER, *_TEXT, _HEADS), pooler=True)
CLIP = NetworkRole("a CLIP", {"clip": "CLIPModel"}, (*_NEVER, r"^logit_scale$"), _NEVER)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a weight's name fits one of the patterns."""
    return any(re.search(pattern, name) for pattern in patterns)
