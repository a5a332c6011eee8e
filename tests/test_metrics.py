"""Metrics by hand: features whose distances are known, pictures that are none, classifiers of the real classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import transformers
from PIL import Image
from transformers import CLIPImageProcessor, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from unlearnkit.canvas.classifier import CanvasClassifier
from unlearnkit.errors import ModelError
from unlearnkit.metrics import METRICS
from unlearnkit.metrics.distance import cmmd, diversity, fid, kid
from unlearnkit.metrics.evaluators import TransformersClassifier, evaluators_of, local_evaluators
from unlearnkit.metrics.pixels import change, spoilt
from unlearnkit.model.edit import digest

RNG = np.random.default_rng(0)
PROMPTS = range(60)


def picture(seed: int = 0, size: int = 64) -> Image.Image:
    """Smooth blobs of colour."""
    small = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def test_distances_of_equal_sets_are_nothing() -> None:
    x = RNG.normal(size=(60, 8))
    for distance in (kid, cmmd):
        found = distance(x, x.copy(), PROMPTS)
        assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-12)
    before, after, less = diversity(x, x, PROMPTS)
    assert before == after
    assert less.value == pytest.approx(0, abs=1e-12)


def test_kid_by_hand() -> None:
    """Two features of dimension 1: every kernel is ``(ab + 1)^3``, and only pairs of different prompts count."""
    x, y = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [1.0], [0.0]])
    k = lambda a, b: float((a * b + 1) ** 3)  # noqa: E731
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    by_hand = np.mean(
        [
            k(x[i, 0], x[j, 0]) + k(y[i, 0], y[j, 0]) - k(x[i, 0], y[j, 0]) - k(y[i, 0], x[j, 0])
            for i, j in pairs
        ]
    )
    assert kid(x, y, range(3)).value == pytest.approx(by_hand)
    with_copies = kid(x[[0, 0, 1, 2]], y[[0, 0, 1, 2]], [0, 0, 1, 2])
    assert with_copies.value != pytest.approx(by_hand), (
        "a prompt of two pictures counts twice, never with itself"
    )


def test_distances_are_unbiased_and_find_a_shift() -> None:
    same = [kid(RNG.normal(size=(60, 8)), RNG.normal(size=(60, 8)), PROMPTS) for _ in range(40)]
    assert abs(np.mean([one.value for one in same])) < 3 * np.std([one.value for one in same]) / 40**0.5
    assert np.mean([one.low <= 0 <= one.high for one in same]) > 0.8
    for distance in (kid, cmmd):
        shifted = distance(RNG.normal(size=(60, 8)), RNG.normal(1, 1, size=(60, 8)), PROMPTS)
        assert shifted.low > 0


def test_the_jackknife_leaves_out_whole_prompts() -> None:
    x, y = RNG.normal(size=(20, 8)), RNG.normal(0.5, 1, size=(20, 8))
    twice = np.repeat(np.arange(20), 2)
    one, two = kid(x, y, range(20)), kid(x[twice], y[twice], twice)
    assert (two.value, two.low, two.high) == pytest.approx((one.value, one.low, one.high))
    without = [kid(np.delete(x, i, 0), np.delete(y, i, 0), range(19)).value for i in range(20)]
    half = 2.0930 * (19 / 20 * sum((w - np.mean(without)) ** 2 for w in without)) ** 0.5
    assert one.high - one.value == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize("d", [1, 3, 8])
def test_fid_is_the_frechet_distance(d: int) -> None:
    """Against the formula as it stands: |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)), the root by scipy, in float64."""
    rng = np.random.default_rng(d)
    x, y = rng.normal(size=(300, d)), rng.normal(0.3, 1.5, size=(200, d)) @ rng.normal(size=(d, d))
    s, t = (np.cov(one, rowvar=False).reshape(d, d) for one in (x, y))
    root = np.asarray(scipy.linalg.sqrtm(s @ t)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root)
    assert fid(x, y) == pytest.approx(expected, rel=1e-9)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)


def test_fid_by_hand() -> None:
    """Variances 1 and 4 along one axis, means 3 apart: 3^2 + (1 - 2)^2 = 10."""
    x = np.array([[-1.0], [1.0]]) / 2**0.5
    assert fid(x, 2 * x + 3) == pytest.approx(10)


def test_fid_where_there_are_more_features_than_pictures() -> None:
    """The covariances are singular, and still: shifting every picture by v adds v^2 and nothing else."""
    x = np.random.default_rng(0).normal(size=(10, 30))
    assert fid(x, x + 0.5) == pytest.approx(30 * 0.25, rel=1e-5)


def test_diversity_falls_when_all_pictures_are_one() -> None:
    x = RNG.normal(size=(30, 8))
    before, after, less = diversity(x, np.ones((30, 8)), range(30))
    assert before.value > 0.8
    assert after.value == pytest.approx(0, abs=1e-12)
    assert less.value == pytest.approx(after.value - before.value)
    assert less.high < 0


def test_pictures_that_are_none() -> None:
    noise = Image.fromarray(RNG.integers(0, 255, (64, 64, 3), np.uint8))
    assert spoilt(noise) == "noise"
    assert spoilt(Image.new("RGB", (64, 64), "gray")) == "blank"
    assert spoilt(picture()) == ""


def test_change_is_in_levels() -> None:
    assert change(picture(), picture()) == 0
    assert change(Image.new("RGB", (8, 8), (10, 20, 30)), Image.new("RGB", (8, 8), (13, 20, 30))) == 1
    assert change(picture(size=8), picture(size=16)) == 255


def test_an_eye_is_a_reader_and_features() -> None:
    torch.manual_seed(0)
    network = CanvasClassifier("residual", ["cat", "dog"], ["plain", "neon"]).eval()
    tools = evaluators_of(network, "eye@1")
    pictures = [picture(i) for i in range(5)]
    seen = tools.classifiers[0].classify(pictures)
    assert [one["object"][0] for one in seen] == [one.object for one in network.classify(pictures)]
    assert tools.features is not None
    assert tools.features(pictures).shape == (5, network.object_head.in_features)
    logits = network.object_head(torch.from_numpy(tools.features(pictures)).float())
    assert [network.objects[i] for i in logits.argmax(1)] == [one["object"][0] for one in seen]


def test_local_instruments_of_the_real_classes(tmp_path: Path, words: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    import tiny

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    labels = {0: "Cats", 1: "Dogs"}
    config = ViTConfig(**small, image_size=16, patch_size=8, id2label=labels, label2id={"Cats": 0, "Dogs": 1})
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    text = tiny.tokenizer(words)
    ends = {"bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id}
    clip = CLIPConfig(
        text_config={**small, "vocab_size": len(text), "max_position_embeddings": tiny.LENGTH, **ends},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(clip).save_pretrained(tmp_path / "clip")
    text.save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(tmp_path / "clip")

    tools = local_evaluators(objects=tmp_path / "vit", clip=tmp_path / "clip")
    pictures = [picture(i) for i in range(3)]
    seen = tools.classifiers[0].classify(pictures)
    assert {one["object"][0] for one in seen} <= set(labels.values())
    assert all(0.5 <= one["object"][1] <= 1 for one in seen)
    assert tools.clip is not None
    assert tools.features is not None
    for vectors in (tools.clip.images(pictures), tools.clip.texts(["a cat", "dog", "a car"])):
        assert vectors.shape == (3, 8)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert len(set(tools.names)) == 2
    assert all("@" in name for name in tools.names)
    with pytest.raises(ModelError, match="no folder or hub id"):
        local_evaluators(objects=tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["Dinov2", "ViTMSN"])
def test_a_network_of_features(tmp_path: Path, kind: str) -> None:
    """The pooled output where the network has one (DINOv2), else the mean of its last states."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = getattr(transformers, f"{kind}Config")(**small, image_size=16, patch_size=8)
    network = getattr(transformers, f"{kind}Model")(config).eval()
    network.save_pretrained(tmp_path / "network")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "network")
    tools = local_evaluators(features=tmp_path / "network", device="cpu")
    assert tools.features is not None
    assert tools.network == f"network@{digest(network.state_dict().items())[:8]}"
    assert (tools.classifiers, tools.clip) == ((), None)
    pictures = [picture(i) for i in range(3)]
    small_ones = [one.resize((16, 16), Image.Resampling.BILINEAR) for one in pictures]
    pixels = torch.from_numpy(np.stack([np.asarray(one, np.float32) for one in small_ones])) / 127.5 - 1
    with torch.no_grad():
        told = network(pixels.permute(0, 3, 1, 2))
    expected = told.pooler_output if kind == "Dinov2" else told.last_hidden_state.mean(1)
    assert tools.features(pictures) == pytest.approx(expected.numpy(), abs=1e-5)


def test_readers_go_to_the_models_device(tmp_path: Path) -> None:
    """The device ``meta`` holds no values, so whatever is on it was put there."""
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    named = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    config = ViTConfig(**small, image_size=16, patch_size=8, **named)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    tools = local_evaluators(objects=tmp_path, features=tmp_path, device="meta")
    (reader,) = tools.classifiers
    assert isinstance(reader, TransformersClassifier)
    assert reader.model.device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):
        reader.classify([picture()])


def test_every_metric_says_its_direction_unit_and_error_bar() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert all((metric.title, metric.direction, metric.unit, metric.meaning))
