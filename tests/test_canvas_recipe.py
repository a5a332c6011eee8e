"""The canvas's training recipe: the painter, the loop, the whole recipe at toy size, its command lines."""

from __future__ import annotations

import ast
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from safetensors import safe_open

import augment
import networks
import painted
import painter
import train
import unknown
from eyes import save_classifier
from loop import train_stage
from pictures import HELD_OUT_PAIRS, UNKNOWN, Picture, caption, draw_picture
from ship import sums
from studio import PAINTED, Studio
from unlearnkit.canvas import world
from unlearnkit.canvas.classifier import CanvasClassifier
from unlearnkit.errors import DivergedError, InputError, ModelError
from unlearnkit.families import borrowing, opening
from unlearnkit.model.load import load
from unlearnkit.seeds import stream

painting = pytest.mark.skipif(not painter.FONT.is_file(), reason="painting needs fonts-noto-color-emoji")


def test_training_never_sees_what_is_held_out() -> None:
    rng = random.Random(5)
    held_out = {word for thing in world.OBJECTS.values() for word in thing.held_out}
    for _ in range(3000):
        picture = draw_picture(rng)
        assert (picture.object, picture.background) not in HELD_OUT_PAIRS
        text = caption(picture, rng)
        assert not held_out.intersection(text.replace(",", "").split())
        assert "here is" not in text


def test_held_words_and_pairs_appear_where_they_may() -> None:
    rng = random.Random(5)
    pictures = [draw_picture(rng, held_out_pairs=True) for _ in range(3000)]
    assert any((p.object, p.background) in HELD_OUT_PAIRS for p in pictures)
    texts = [caption(p, rng, held_out=True) for p in pictures]
    assert any("kitty" in text for text in texts)
    assert any("here is" in text for text in texts)


@painting
def test_the_same_picture_is_painted_the_same() -> None:
    rng = random.Random(1)
    pictures = [draw_picture(rng) for _ in range(20)]
    one, two = (painter.paint_many(pictures, painter.paint, processes=count) for count in (1, 2))
    assert np.array_equal(one, two)
    assert one.shape == (20, 64, 64, 3)


@painting
def test_every_object_and_style_can_be_painted_and_differs() -> None:
    painted = {
        (name, style): painter.paint(Picture(name, style, "white", thing.glyphs[0], 3))
        for name, thing in world.OBJECTS.items()
        for style in world.STYLES
    }
    assert len({array.tobytes() for array in painted.values()}) == len(world.OBJECTS) * len(world.STYLES)
    assert all(array.std() > 5 for array in painted.values())


@painting
def test_every_way_to_show_nothing_known_can_be_painted_and_differs() -> None:
    pictures = [
        unknown.Unknown(world.NOTHING, world.NOTHING, way, ("🐱", "🚗"), filters, "white", 3)
        for way in unknown.WAYS
        for filters in [*((name,) for name in unknown.STRANGE), ("neon", "plain")]
    ]
    one, two = ([unknown.paint_unknown(p).tobytes() for p in pictures] for _ in range(2))
    assert one == two
    assert len(set(one)) == len(pictures)


@given(some.integers(0, 2**32), some.booleans())
def test_an_unknown_picture_is_labelled_by_what_it_is_made_of(seed: int, held_out: bool) -> None:
    shown = unknown.draw_unknown(random.Random(seed), held_out=held_out)
    assert (shown.object == world.NOTHING) == (shown.way != "known")
    assert (shown.style == world.NOTHING) == (shown.filters != (shown.style,))
    assert world.NOTHING in (shown.object, shown.style)
    if shown.way == "glyph":
        assert shown.glyphs[0] in UNKNOWN["held" if held_out else "seen"]


def test_no_drawing_is_both_known_and_unknown_or_in_training_and_held() -> None:
    known = {glyph for thing in world.OBJECTS.values() for glyph in thing.glyphs}
    seen, held_out = set(UNKNOWN["seen"]), set(UNKNOWN["held"])
    assert not known & (seen | held_out) and not seen & held_out


def test_a_missing_font_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter, "FONT", Path("/nowhere/font.ttf"))
    painter._glyph.cache_clear()
    with pytest.raises(InputError, match="apt-get install fonts-noto-color-emoji"):
        painter.paint(Picture("cat", "plain", "white", "🐱", 1))


def _toy_stage(folder: Path, steps: int, *, die_at: int | None = None) -> torch.nn.Module:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if step == die_at:
            raise KeyboardInterrupt
        return network(torch.randn(8, 3, generator=stream(1, "toy", step))).square().mean(), {}

    train_stage("toy", network, loss_of, steps=steps, learning_rate=1e-2, folder=folder, decay=0.9)
    return network


def test_a_stopped_stage_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loop.SAVE_EVERY", 0.0)
    monkeypatch.setattr("loop.LOOK", 5)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = _toy_stage(tmp_path / "a", 30)
    with pytest.raises(KeyboardInterrupt):
        _toy_stage(tmp_path / "b", 30, die_at=17)
    with safe_open(tmp_path / "b" / "toy.safetensors", "pt") as file:
        assert file.metadata()["step"] == "15"
    resumed = _toy_stage(tmp_path / "b", 30)
    assert torch.equal(whole.weight, resumed.weight)


def test_a_loss_that_is_no_number_stops_the_stage(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    with pytest.raises(DivergedError, match="by step 2"):
        train_stage(
            "bad",
            network,
            lambda _: (network.weight.sum() * float("nan"), {}),
            steps=2,
            learning_rate=1.0,
            folder=tmp_path,
        )


@painting
def test_the_whole_recipe_at_toy_size_ships_what_plain_diffusers_draws_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, into = tmp_path / "work", tmp_path / "shipped"
    for module in (borrowing, opening):  # only what is shipped may borrow
        monkeypatch.setattr(module, "SHIPPED", into)
        opening._check_shipped.cache_clear()
    counts = [f"--painted={part}=30" for part in PAINTED] + [f"--steps={name}=1" for name in train.STEPS]
    train.main(["all", "--work", str(work), "--into", str(into), *counts])
    pipe = StableDiffusionPipeline.from_pretrained(into / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a cat", num_inference_steps=2, generator=stream(0, "noise")).images[0]
    assert image.size == (64, 64)
    assert {path.name for path in into.iterdir()} >= {"pipeline", "never-knew", "guide", "judge", "clip"}
    for name, prompt in (("flow", "a cat"), ("classes", "cat")):
        model = load(into / name)
        assert model.sample([prompt], [0], steps=2)[0].size == (64, 64)
        model.save(tmp_path / name)
        whole = load(tmp_path / name)
        assert np.array_equal(*(one.sample([prompt], [0], steps=2)[0] for one in (model, whole)))
    names = "tokenizer/vocab.json", "tokenizer/merges.txt"
    assert all((into / "pipeline" / n).read_bytes() == (work / n).read_bytes() for n in names)
    lines = (into / "SHA256SUMS").read_text().splitlines()
    assert dict(reversed(line.split("  ", 1)) for line in lines) == sums(into)
    opening._check_shipped.cache_clear()


def test_a_tokenizer_is_learned_the_same_every_time_and_then_kept(tmp_path: Path) -> None:
    one, two = (networks.make_tokenizer(tmp_path / name) for name in "ab")
    assert one.get_vocab() == two.get_vocab()
    assert (tmp_path / "a/merges.txt").read_bytes() == (tmp_path / "b/merges.txt").read_bytes()
    vocabulary = tmp_path / "a/vocab.json"
    changed = json.loads(vocabulary.read_text(encoding="utf-8"))
    changed["a</w>"], changed["e</w>"] = changed["e</w>"], changed["a</w>"]
    vocabulary.write_text(json.dumps(changed, ensure_ascii=False), encoding="utf-8")
    assert networks.make_tokenizer(tmp_path / "a").get_vocab() == changed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["unett"], "stage 'unett' is unknown .did you mean 'unet'"),
        (["unet", "--steps", "ship=3"], "'ship' is none of vae, "),
        (["unet", "--steps", "unet"], "write a whole number from 1 up"),
        (["unet", "--steps", "unet=-1"], "write a whole number from 1 up"),
        (["data", "--painted", "train=3"], "write a whole number from 30 up"),
        (["data", "--threads", "-1"], "--threads -1"),
        (["data", "--device", "tpu"], "device 'tpu' is unknown: choose cpu or cuda"),
        (["data", "--colour", "red"], "unrecognized arguments: --colour red"),
        ([], "required: STAGE"),
        (["vae"], "run the stage data first"),
        (["ship"], "run the stage decoder first"),
    ],
)
def test_bad_input_to_the_recipe_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main([*words, "--work", str(tmp_path / "work")])
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(lines) == 1
    assert re.search(said, lines[0])


def test_pictures_of_another_count_are_not_trained_on(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.zeros((40, 64, 64, 3), np.uint8))
    studio = Studio(tmp_path, steps=train.STEPS, painted=PAINTED | {"train": 50})
    with pytest.raises(InputError, match=r"holds 40 pictures, not 50: .* --painted train=40"):
        studio.data("train")


def test_the_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert stopped.value.code == 0
    for name, stage in train.STAGES.items():
        assert any(line.split()[:1] == [name] and line.endswith(stage.about) for line in lines)


@pytest.mark.parametrize("form", ["plain", "residual"])
def test_an_evaluator_survives_saving(form: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    classifier = CanvasClassifier(form, ["cat", "dog"], ["plain", "neon"]).eval()
    save_classifier(classifier, tmp_path / "eye")
    images = [
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)) for i in range(3)
    ]
    again = CanvasClassifier.load(tmp_path / "eye")
    assert [s.object for s in classifier.classify(images)] == [s.object for s in again.classify(images)]
    (tmp_path / "eye" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="no evaluator in"):
        CanvasClassifier.load(tmp_path / "eye")


def test_disturbed_pictures_stay_pictures() -> None:
    images = torch.rand(12, 3, 64, 64, generator=stream(0, "t")) * 2 - 1
    out = augment.degrade(images, stream(0, "d"))
    assert out.shape == images.shape
    assert out.abs().max() <= 1
    assert torch.equal(out, augment.degrade(images, stream(0, "d")))


@painting
def test_the_evaluators_know_painted_pictures() -> None:
    found = painted.check_evaluators(150)
    for name in ("judge", "guide", "clip"):
        assert found[name]["object"] >= 98.5
        assert found[name]["style"] >= 98.5
    assert min(share for name in ("judge", "guide") for share in found[f"{name}, unknown"].values()) >= 60


@painting
def test_the_grid_is_painted_the_same_every_time(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.png", "two.png")]
    for file in files:
        painted.main(["grid", "--out", str(file)])
    assert files[0].read_bytes() == files[1].read_bytes()
    before = files[0].read_bytes()
    with pytest.raises(SystemExit):
        painted.main(["grid", "--seed", "1", "--out", str(files[0])])
    assert files[0].read_bytes() == before, "nothing is overwritten"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: COMMAND"),
        (["grid", "--scale", "9"], "--scale 9: write a whole number from 1 to 8"),
        pytest.param(["grid", "--out", "/nowhere/grid.png"], "cannot be written", marks=painting),
        (["check", "--count", "0"], "--count 0: write a whole number from 5 up"),
    ],
)
def test_bad_input_to_what_paints_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        painted.main(words)
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(lines) == 1 and said in lines[0]


def test_the_package_never_imports_the_recipe() -> None:
    recipe = {path.stem for path in Path(train.__file__).parent.glob("*.py")} | {"recipes"}
    for path in (Path(train.__file__).parents[2] / "unlearnkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.partition(".")[0] for name in names} & recipe, path
