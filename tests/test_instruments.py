"""Readers that a user brings: NudeNet's detector, a bare ViT checkpoint, a network of features; each at toy size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unlearnkit.errors import InputError, ModelError
from unlearnkit.metrics.checkpoint import Checkpoint
from unlearnkit.metrics.evaluators import local_evaluators
from unlearnkit.metrics.nudenet import LABELS, SETS, NudeNet
from unlearnkit.model.edit import digest

# NudeNet: a network whose scores are the mean red, green and blue of the picture's upper left quarter


def detector(file: Path, *, rows: int = 22, score: float = 1.0) -> Path:
    """An ONNX file of NudeNet's shapes, 8 pixels a side: three labels see one colour each, in one box of two."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.zeros((rows, 3), np.float32)
    for channel, label in enumerate(("FEMALE_BREAST_EXPOSED", "BELLY_EXPOSED", "FACE_MALE")):
        weights[4 + LABELS.index(label), channel] = 1
    boxes = np.array([[score, 0.5]], np.float32)  # the second box of each label scores half
    numbers = onnx.numpy_helper.from_array
    whole = {"starts": [0, 0], "ends": [4, 4], "axes": [2, 3]}
    constants = [numbers(np.array(value, np.int64), name) for name, value in whole.items()]
    constants += [
        numbers(weights, "weights"),
        numbers(boxes, "boxes"),
        numbers(np.array([3, 1], np.int64), "column"),
    ]
    nodes = [
        make.make_node("Slice", ["images", "starts", "ends", "axes"], ["corner"]),
        make.make_node("GlobalAveragePool", ["corner"], ["pooled"]),
        make.make_node("Reshape", ["pooled", "column"], ["colours"]),
        make.make_node("MatMul", ["weights", "colours"], ["scores"]),
        make.make_node("MatMul", ["scores", "boxes"], ["table"]),
        make.make_node("Unsqueeze", ["table", "first"], ["output0"]),
    ]
    constants.append(numbers(np.array([0], np.int64), "first"))
    graph = make.make_graph(
        nodes,
        "toy",
        [make.make_tensor_value_info("images", kind, [1, 3, 8, 8])],
        [make.make_tensor_value_info("output0", kind, [1, rows, 2])],
        constants,
    )
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), file)
    return file


def plain(red: int, green: int, blue: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new("RGB", size, (red, green, blue))


def test_nudenet_sees_red_in_red_and_says_how_it_looked(tmp_path: Path) -> None:
    file = detector(tmp_path / "toy.onnx")
    strict = NudeNet(file, threshold=0.6)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    assert strict.name == f"nudenet-strict-0.6@{digest}"
    red, green, blue = plain(204, 0, 0), plain(0, 204, 0), plain(0, 0, 204)
    words = [one["object"] for one in strict.classify([red, green, blue, plain(152, 0, 0)])]
    assert [word for word, _ in words] == ["nudity", "nothing", "nothing", "nothing"]
    assert words[0][1] == pytest.approx(0.8), "204 of 255"
    assert words[3][1] == pytest.approx(152 / 255), (
        "just below the threshold, and the score is told all the same"
    )
    broad = NudeNet(file, threshold=0.6, labels="broad").classify([red, green, blue])
    assert [one["object"][0] for one in broad] == ["nudity", "nudity", "nothing"], (
        "a belly counts, a face does not"
    )


def test_nudenet_pads_to_the_right_and_below(tmp_path: Path) -> None:
    reader = NudeNet(detector(tmp_path / "toy.onnx"), threshold=0.5)
    wide = reader.classify([plain(255, 0, 0, (16, 4))])[0]["object"][1]
    # the upper quarter of the square is red, so half of the upper left quarter; the filter blurs the edge a little
    assert wide == pytest.approx(0.5, abs=0.03)


def test_the_label_sets() -> None:
    assert len(LABELS) == len(set(LABELS)) == 18
    assert len(SETS["strict"]) == 5
    assert len(SETS["broad"]) == 9
    assert set(SETS["strict"]) < set(SETS["broad"])


def test_nudenet_refuses(tmp_path: Path) -> None:
    file = detector(tmp_path / "toy.onnx")
    with pytest.raises(InputError, match=r"threshold 60 is out of range"):
        NudeNet(file, threshold=60)
    with pytest.raises(InputError, match=r"labels 'strickt' are unknown .did you mean 'strict'"):
        NudeNet(file, threshold=0.6, labels="strickt")
    with pytest.raises(InputError, match="needs a threshold"):
        local_evaluators(nudenet=file)
    with pytest.raises(ModelError, match="cannot be read"):
        NudeNet(tmp_path / "none.onnx", threshold=0.6)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelError, match="no ONNX model"):
        NudeNet(tmp_path / "text.onnx", threshold=0.6)
    with pytest.raises(ModelError, match=r"not \(1, 22, boxes\)"):
        NudeNet(detector(tmp_path / "other.onnx", rows=25), threshold=0.6)


# a checkpoint under timm's names, held against a forward pass written out


def checkpoint(classes: int = 3, width: int = 128, layers: int = 2) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {
        **{"cls_token": (1, 1, width), "pos_embed": (1, 5, width)},
        **{"patch_embed.proj.weight": (width, 3, 4, 4), "patch_embed.proj.bias": (width,)},
        **{"norm.weight": (width,), "norm.bias": (width,)},
        **{"head.weight": (classes, width), "head.bias": (classes,)},
    }
    for layer in range(layers):
        for name, shape in {
            **{"norm1": (width,), "norm2": (width,)},
            **{"attn.qkv": (3 * width, width), "attn.proj": (width, width)},
            **{"mlp.fc1": (2 * width, width), "mlp.fc2": (width, 2 * width)},
        }.items():
            shapes[f"blocks.{layer}.{name}.weight"] = shape
            shapes[f"blocks.{layer}.{name}.bias"] = shape[:1]
    return {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def by_hand(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Logits of one picture (3, 8, 8), with 2 heads of 64, as timm's ``VisionTransformer`` computes them."""
    f = torch.nn.functional
    at = lambda name: (w[f"{name}.weight"], w[f"{name}.bias"])  # noqa: E731
    x = f.conv2d(x[None], *at("patch_embed.proj"), stride=4).flatten(2)[0].T
    x = torch.cat([w["cls_token"][0], x]) + w["pos_embed"][0]
    for layer in range(2):
        name = f"blocks.{layer}"
        y = f.layer_norm(x, (128,), *at(f"{name}.norm1"), 1e-6)
        q, k, v = f.linear(y, *at(f"{name}.attn.qkv")).view(5, 3, 2, 64).permute(1, 2, 0, 3)
        y = ((q @ k.transpose(1, 2) / 8).softmax(-1) @ v).transpose(0, 1).reshape(5, 128)
        x = x + f.linear(y, *at(f"{name}.attn.proj"))
        y = f.layer_norm(x, (128,), *at(f"{name}.norm2"), 1e-6)
        x = x + f.linear(f.gelu(f.linear(y, *at(f"{name}.mlp.fc1"))), *at(f"{name}.mlp.fc2"))
    return f.linear(f.layer_norm(x, (128,), *at("norm"), 1e-6)[0], *at("head"))


def test_a_checkpoint_sees_what_its_network_sees(tmp_path: Path) -> None:
    weights = checkpoint()
    save_file(weights, tmp_path / "objects.safetensors")
    reader = Checkpoint(tmp_path / "objects.safetensors", "object", ["Cats", "Dogs", "Sea"])
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(5)]
    assert reader.name.startswith("objects@")
    for picture, found in zip(pictures, reader.classify(pictures), strict=True):
        pixels = torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1).permute(2, 0, 1)
        shares = by_hand(weights, pixels).softmax(0)
        word, share = found["object"]
        assert word == ["Cats", "Dogs", "Sea"][int(shares.argmax())]
        assert share == pytest.approx(float(shares.max()), abs=1e-4)


def test_a_checkpoint_must_be_tensors_of_a_vit(tmp_path: Path) -> None:
    file = tmp_path / "objects.safetensors"
    save_file(checkpoint(), file)
    with pytest.raises(InputError, match="does not name its classes"):
        local_evaluators(objects=file)
    with pytest.raises(ModelError, match="no ViT with 4 classes"):
        Checkpoint(file, "object", ["a", "b", "c", "d"])
    save_file({"head.weight": torch.zeros(3, 4)}, file)
    with pytest.raises(ModelError, match="no ViT with 3 classes"):
        Checkpoint(file, "object", ["a", "b", "c"])
    file.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="no file of safetensors"):
        Checkpoint(file, "object", ["a", "b", "c"])


@pytest.mark.parametrize("name", ["cls.pth", "cls.pt", "cls.ckpt", "cls.bin"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    torch.save({"model_state_dict": checkpoint()}, tmp_path / name)
    with pytest.raises(ModelError, match=r"never opened: convert it to \.safetensors") as told:
        local_evaluators(objects=tmp_path / name, words={"object": ["a", "b", "c"]})
    assert "\n" not in str(told.value)


def test_a_pickle_is_converted_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = checkpoint()
    torch.save({"model_state_dict": weights, "epoch": 3}, tmp_path / "cls.pth")
    text = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
    lines = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    (reader,) = local_evaluators(
        objects=tmp_path / "cls.safetensors", words={"object": ["a", "b", "c"]}
    ).classifiers
    assert reader.name == f"cls@{digest(weights.items())[:8]}"
