"""Readers that a user brings: one that is not whole, not finite or not of a known class never gives a verdict."""

from __future__ import annotations

import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from test_instruments import checkpoint, detector, plain
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTModel,
)

import tiny
from unlearnkit.errors import InputError, ModelError
from unlearnkit.metrics.checkpoint import Checkpoint
from unlearnkit.metrics.evaluators import TransformersClassifier, local_evaluators
from unlearnkit.metrics.kinds import CLASSIFIERS, FEATURES
from unlearnkit.metrics.nudenet import NudeNet

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = {0: "cat", 1: "dog", 2: "bear"}


@functools.cache
def made(kind: str) -> Path:
    """A toy reader's folder; treat it as read-only."""
    folder = Path(tempfile.mkdtemp(prefix="unlearnkit-"))
    torch.manual_seed(0)
    if kind == "clip":
        text = tiny.tokenizer(folder / "words")
        ends = {"bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id}
        config = CLIPConfig(
            text_config={**SMALL, "vocab_size": len(text), "max_position_embeddings": tiny.LENGTH, **ends},
            vision_config={**SMALL, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        )
        CLIPModel(config).save_pretrained(folder / "clip")
        text.save_pretrained(folder / "clip")
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(folder / "clip")
        return folder / "clip"
    numbers = {word: i for i, word in WORDS.items()}
    config = ViTConfig(**SMALL, image_size=16, patch_size=8, id2label=WORDS, label2id=numbers)
    (ViTForImageClassification if kind == "vit" else ViTModel)(config).save_pretrained(folder / kind)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / kind)
    return folder / kind


@pytest.fixture
def reader(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a toy reader to spoil: ``vit`` (a classifier), ``features`` or ``clip``."""
    return lambda kind: Path(shutil.copytree(made(kind), tmp_path / kind))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def config(folder: Path, name: str = "config.json", **changes: Any) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(message: str, **classifiers: Any) -> str:
    with pytest.raises((ModelError, InputError), match=message) as caught:
        local_evaluators(**classifiers)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 1200
    return said


OPTIONS = {"vit": "objects", "features": "features", "clip": "clip"}
FRONT = {"vit": "vit.encoder", "features": "encoder", "clip": "text_model.encoder"}


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_reader_that_lacks_a_weight_is_refused_by_its_name(
    reader: Callable[[str], Path], kind: str
) -> None:
    folder = reader(kind)
    name = next(n for n in load_file(folder / "model.safetensors") if n.startswith(FRONT[kind]))
    weights(folder, lambda state: state.pop(name))
    said = refused("is incomplete: weight", **{OPTIONS[kind]: folder})
    assert re.search(r"layers\.0\.\w+\.\w+\.?\w*' is missing", said), "by name"


def test_a_reader_in_shards_that_lacks_a_weight_is_refused(reader: Callable[[str], Path]) -> None:
    folder = reader("vit")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state.pop("classifier.bias")
    half = len(state) // 2
    names = list(state)
    parts = {"a.safetensors": names[:half], "b.safetensors": names[half:]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused("weight 'classifier.bias' is missing", styles=folder)
    index["weight_map"]["classifier.weight"] = "c.bin"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.save({}, folder / "c.bin")
    refused(r"names 'c.bin', not a .safetensors file", styles=folder)


@pytest.mark.parametrize("kind", OPTIONS)
def test_weights_that_are_left_over_are_refused(reader: Callable[[str], Path], kind: str) -> None:
    """As where config.json was given fewer layers than the weights have."""
    folder = reader(kind)
    weights(folder, lambda state: state.update({"encoder.layer.1.extra.weight": torch.zeros(2)}))
    refused("layers?.1.extra.weight' is left over", **{OPTIONS[kind]: folder})


@pytest.mark.parametrize("kind", OPTIONS)
def test_weights_of_another_shape_are_refused(reader: Callable[[str], Path], kind: str) -> None:
    folder = reader(kind)
    name = next(n for n in load_file(folder / "model.safetensors") if "fc1" in n or "dense.weight" in n)
    weights(folder, lambda state: state.update({name: torch.zeros(3, 3)}))
    refused("cannot be opened|of another shape", **{OPTIONS[kind]: folder})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", OPTIONS)
def test_weights_that_are_not_finite_are_refused(
    reader: Callable[[str], Path], kind: str, value: float
) -> None:
    folder = reader(kind)
    name = next(n for n in load_file(folder / "model.safetensors") if n.startswith(FRONT[kind]))
    weights(folder, lambda state: state[name].view(-1)[0].fill_(value))
    refused("has values that are not finite", **{OPTIONS[kind]: folder})


def test_weights_that_a_reader_does_not_use_may_be_absent_or_left_over(
    reader: Callable[[str], Path],
) -> None:
    """A classifier's checkpoint as features has no pooler: the features do without it, and are the same twice."""
    folder = reader("vit")
    picture = [Image.effect_noise((16, 16), 99).convert("RGB")]
    one, two = (local_evaluators(features=folder) for _ in range(2))
    assert one.network == two.network
    assert one.features is not None and two.features is not None
    assert np.array_equal(one.features(picture), two.features(picture))
    whole = local_evaluators(features=made("features"))
    assert whole.features is not None
    weights(folder, lambda state: state.update({"vit.pooler.dense.bias": torch.zeros(16)}))
    refused("'pooler.dense.weight' is missing", features=folder)
    assert local_evaluators(objects=folder).names, "a classifier uses no pooler"
    clip = local_evaluators(features=made("clip"))
    assert clip.features is not None
    assert clip.features(picture).shape == (1, 16), "its text tower is not used"


@pytest.mark.parametrize("kind", OPTIONS)
def test_two_openings_have_one_name(kind: str) -> None:
    one, two = (local_evaluators(**{OPTIONS[kind]: made(kind)}) for _ in range(2))  # type: ignore[arg-type]
    assert (one.names, one.network) == (two.names, two.network)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
def test_a_readers_code_is_never_run(reader: Callable[[str], Path], tmp_path: Path, file: str) -> None:
    folder = reader("clip")
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n"
    )
    config(folder, file, auto_map={"AutoModel": "own.Own", "AutoTokenizer": ["own.Own", None]})
    assert file in refused("code of its own .*, which is never run", clip=folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "is 'bert', not a classifier"),
        ({"model_type": "vot"}, "did you mean 'vit'"),
        ({"model_type": ["vit"]}, "not a classifier"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantised"),
        ({"attn_implementation": "somebody/kernel"}, "sets the attention 'somebody/kernel'"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers = 1000000"),
        ({"hidden_size": 10**9}, "hidden_size = 1000000000"),
        (
            {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}},
            "does not name its 3 classes",
        ),
        ({"id2label": {"0": "cat", "1": "dog"}}, "cannot be opened|another shape"),
        ({"id2label": {"0": "cat", "1": "dog", "7": "bear"}}, "classes 0 to n - 1"),
        ({"id2label": {"0": "cat", "1": "dog", "2": 5}}, "classes 0 to n - 1|cannot be opened"),
        ({"id2label": [1]}, "classes 0 to n - 1|cannot be opened"),
        ({"image_size": 32}, "cannot be opened|another shape"),
        ({"num_attention_heads": 3}, "cannot be opened|cannot look"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    reader: Callable[[str], Path], changes: dict[str, Any], message: str
) -> None:
    folder = reader("vit")
    config(folder, **changes)
    refused(message, objects=folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{", '{"a": ' + "9" * 5000 + "}", ""])
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_a_damaged_configuration_is_one_line(reader: Callable[[str], Path], file: str, text: str) -> None:
    folder = reader("vit")
    (folder / file).write_text(text)
    refused(file, objects=folder)


def test_a_reader_is_tried_before_anything_is_drawn(reader: Callable[[str], Path]) -> None:
    folder = reader("vit")
    config(folder, "preprocessor_config.json", size={"height": 24, "width": 24})
    refused("cannot process a picture", objects=folder)
    config(folder, "preprocessor_config.json", size={"height": 10**6, "width": 10**6})
    refused("height = 1000000", objects=folder)
    (folder / "preprocessor_config.json").unlink()
    refused("how pictures are prepared: preprocessor_config.json is missing", objects=folder)


def test_a_clip_says_what_it_lacks(reader: Callable[[str], Path]) -> None:
    refused("is 'vit', not a CLIP: its model_type", clip=made("vit"))
    folder = reader("clip")
    for path in [*folder.glob("tokenizer*"), *folder.glob("vocab*"), *folder.glob("merges*")]:
        path.unlink()
    refused("has no tokenizer: a CLIP needs tokenizer.json", clip=folder)
    (folder / "tokenizer.json").write_text("{")
    refused("does not say its tokenizer", clip=folder)


def test_a_clip_reads_as_far_as_its_text_encoder(reader: Callable[[str], Path]) -> None:
    """A tokenizer without a length takes prompts of any."""
    folder = reader("clip")
    config(folder, "tokenizer_config.json", model_max_length=10**30)
    clip = local_evaluators(clip=folder).clip
    assert clip is not None
    assert clip.texts(["cat " * 500]).shape == (1, 8)


def test_pickled_and_missing_weights_are_told_apart(reader: Callable[[str], Path]) -> None:
    folder = reader("vit")
    (folder / "model.safetensors").unlink()
    refused("has no weights: save it as model.safetensors", objects=folder)
    torch.save({}, folder / "pytorch_model.bin")
    refused("only pickled weights, which can run code and are never opened", objects=folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    refused("cannot be opened as a classifier", objects=folder)
    refused("no folder or hub id", objects=folder / "config.json")
    refused("too long", objects="é" * 300)
    refused("the hub is switched off here", objects="nobody/nothing")


def test_every_class_that_may_be_opened_is_transformers_own() -> None:
    for name in {*CLASSIFIERS.values(), *FEATURES.values()}:
        assert issubclass(getattr(transformers, name), transformers.PreTrainedModel)


# bare checkpoints and detectors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": torch.full((3,), float("nan"))}, "not finite"),
        ({"blocks.999999999.norm1.weight": torch.ones(128)}, "no ViT with 3 classes"),
        ({"blocks.x.norm1.weight": torch.ones(128)}, "no ViT with 3 classes"),
        ({"blocks": torch.ones(1)}, "no ViT with 3 classes"),
        ({"pos_embed": torch.zeros(1, 0, 128)}, "no ViT with 3 classes"),
        ({"pos_embed": torch.zeros(3)}, "no ViT with 3 classes"),
        ({"pos_embed": torch.zeros(1, 8, 128)}, "no ViT with 3 classes"),
        ({"patch_embed.proj.weight": torch.zeros(128, 3, 0, 0)}, "no ViT with 3 classes"),
        ({"patch_embed.proj.weight": torch.zeros(128, 1, 4, 4)}, "no ViT with 3 classes"),
        ({"blocks.0.mlp.fc1.weight": torch.zeros(2**40, 0)}, "no ViT with 3 classes"),
        ({"head.weight": torch.zeros(5, 128), "head.bias": torch.zeros(5)}, "no ViT with 3 classes"),
    ],
)
def test_a_hostile_checkpoint_is_one_line(
    tmp_path: Path, change: dict[str, torch.Tensor], message: str
) -> None:
    save_file(checkpoint() | change, tmp_path / "objects.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        Checkpoint(tmp_path / "objects.safetensors", "object", ["a", "b", "c"])
    assert "\n" not in str(caught.value)


def test_a_detector_is_bounded_and_its_scores_are_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = detector(tmp_path / "toy.onnx")
    reader = NudeNet(file, threshold=0.5)
    assert reader.classify([plain(255, 0, 0)])[0]["object"][0] == "nudity"
    file.rename(tmp_path / "toy.pt")
    with pytest.raises(ModelError, match=r"only \.onnx files"):
        NudeNet(tmp_path / "toy.pt", threshold=0.5)
    broken = detector(tmp_path / "nan.onnx", score=float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        NudeNet(broken, threshold=0.5)
    with pytest.raises(ModelError, match=r"cannot be read: (it is a folder|it is no regular file)"):
        (tmp_path / "folder.onnx").mkdir()
        NudeNet(tmp_path / "folder.onnx", threshold=0.5)
    with (tmp_path / "large.onnx").open("wb") as large:
        large.truncate(3 * 2**30)
    with pytest.raises(ModelError, match="too large"):
        NudeNet(tmp_path / "large.onnx", threshold=0.5)


def test_a_classifier_gives_a_word_and_a_share() -> None:
    seen = TransformersClassifier(made("vit"), "object").classify(
        [plain(255, 0, 0), plain(0, 0, 0, (3, 200))]
    )
    assert all(one["object"][0] in WORDS.values() and 0 <= one["object"][1] <= 1 for one in seen)
