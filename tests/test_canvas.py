"""The canvas: the world's data, the painter, the recipe's loop, and what the package ships."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from safetensors import safe_open

from unlearnkit.canvas import WEIGHTS, augment, check, networks, painter, train, unknown, world
from unlearnkit.canvas.check import cells, seen_right
from unlearnkit.canvas.classifier import Eye, Seen, _choice
from unlearnkit.canvas.judge import judge
from unlearnkit.canvas.loop import train_stage
from unlearnkit.canvas.ship import sums
from unlearnkit.canvas.studio import PAINTED, Studio
from unlearnkit.errors import DivergedError, InputError, ModelError
from unlearnkit.families import borrowing, opening
from unlearnkit.model import load
from unlearnkit.seeds import stream

painting = pytest.mark.skipif(not painter.FONT.is_file(), reason="painting needs fonts-noto-color-emoji")
shipped = pytest.mark.skipif(not (WEIGHTS / "SHA256SUMS").is_file(), reason="no weights are shipped yet")


def test_the_world_is_large_enough() -> None:
    assert len(world.OBJECTS) >= 24
    assert len(world.SUPERCLASSES) >= 5
    assert len(world.STYLES) >= 10
    assert len(world.BACKGROUNDS) >= 8


def test_training_never_sees_what_is_held_out() -> None:
    rng = random.Random(5)
    held = {word for thing in world.OBJECTS.values() for word in thing.held}
    for _ in range(3000):
        picture = world.draw_picture(rng)
        assert (picture.object, picture.background) not in world.HELD_PAIRS
        text = world.caption(picture, rng)
        assert not held.intersection(text.replace(",", "").split())
        assert "here is" not in text


def test_held_words_and_pairs_appear_where_they_may() -> None:
    rng = random.Random(5)
    pictures = [world.draw_picture(rng, held_pairs=True) for _ in range(3000)]
    assert any((p.object, p.background) in world.HELD_PAIRS for p in pictures)
    texts = [world.caption(p, rng, held=True) for p in pictures]
    assert any("kitty" in text for text in texts)
    assert any("here is" in text for text in texts)


def test_captions_by_hand() -> None:
    assert world.prompt("apple") == "a picture of an apple"
    assert world.prompt("cat", "neon") == "a cat in neon style"
    assert world.held_captions("owl", "pop art") == [
        "pop art style, an owl",
        "here is an owl in the style of pop art",
    ]


@painting
def test_the_same_picture_is_painted_the_same() -> None:
    rng = random.Random(1)
    pictures = [world.draw_picture(rng) for _ in range(20)]
    one, two = (painter.paint_many(pictures, painter.paint, processes=count) for count in (1, 2))
    assert np.array_equal(one, two)
    assert one.shape == (20, 64, 64, 3)


@painting
def test_every_object_and_style_can_be_painted_and_differs() -> None:
    painted = {
        (name, style): painter.paint(world.Picture(name, style, "white", thing.glyphs[0], 3))
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
def test_an_unknown_picture_is_labelled_by_what_it_is_made_of(seed: int, held: bool) -> None:
    shown = unknown.draw_unknown(random.Random(seed), held=held)
    assert (shown.object == world.NOTHING) == (shown.way != "known")
    assert (shown.style == world.NOTHING) == (shown.filters != (shown.style,))
    assert world.NOTHING in (shown.object, shown.style)
    if shown.way == "glyph":
        assert shown.glyphs[0] in world.UNKNOWN["held" if held else "seen"]


def test_no_drawing_is_both_known_and_unknown_or_in_training_and_held() -> None:
    known = {glyph for thing in world.OBJECTS.values() for glyph in thing.glyphs}
    seen, held = set(world.UNKNOWN["seen"]), set(world.UNKNOWN["held"])
    assert not known & (seen | held) and not seen & held


def test_a_missing_font_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter, "FONT", Path("/nowhere/font.ttf"))
    painter._glyph.cache_clear()
    with pytest.raises(InputError, match="apt-get install fonts-noto-color-emoji"):
        painter.paint(world.Picture("cat", "plain", "white", "🐱", 1))


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
    monkeypatch.setattr("unlearnkit.canvas.loop.SAVE_EVERY", 0.0)
    monkeypatch.setattr("unlearnkit.canvas.loop.LOOK", 5)
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
    counts = [f"--painted={part}=30" for part in PAINTED] + [f"--steps={name}=2" for name in train.STEPS]
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
    eye = Eye(form, ["cat", "dog"], ["plain", "neon"]).eval()
    eye.save(tmp_path / "eye")
    images = [
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)) for i in range(3)
    ]
    again = Eye.load(tmp_path / "eye")
    assert [s.object for s in eye.look(images)] == [s.object for s in again.look(images)]
    (tmp_path / "eye" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="no evaluator in"):
        Eye.load(tmp_path / "eye")


def test_disturbed_pictures_stay_pictures() -> None:
    images = torch.rand(12, 3, 64, 64, generator=stream(0, "t")) * 2 - 1
    out = augment.degrade(images, stream(0, "d"))
    assert out.shape == images.shape
    assert out.abs().max() <= 1
    assert torch.equal(out, augment.degrade(images, stream(0, "d")))


@given(some.integers(1, 4))
def test_a_cells_seed_depends_on_the_cell_alone(replicates: int) -> None:
    assert set(cells(1, objects=["cat"], styles=["neon"])) <= set(cells(replicates))
    assert len({cell.seed for cell in cells(replicates)}) == 240 * replicates


def test_shares_by_hand() -> None:
    wanted = cells(2, objects=["cat", "dog"], styles=["neon"])
    seen = [
        Seen(name, style, 1, 1)
        for name, style in [("cat", "neon"), ("dog", "neon"), ("dog", "plain"), ("dog", "neon")]
    ]
    found = seen_right(wanted, seen)
    assert (found["object"], found["style"], found["by object"]) == (75.0, 75.0, {"cat": 50.0, "dog": 100.0})


def test_erasing_never_loads_the_judge() -> None:
    code = (
        "import sys, unlearnkit.methods, unlearnkit.training.descend, unlearnkit.run;"
        "sys.exit(any(name.startswith('unlearnkit.canvas.') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@shipped
def test_the_shipped_weights_are_those_of_the_sums() -> None:
    lines = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    assert dict(reversed(line.split("  ", 1)) for line in lines) == sums(WEIGHTS)


@shipped
def test_the_shipped_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 55e6


@shipped
def test_the_shipped_relative_is_told_an_object_and_borrows_the_autoencoder() -> None:
    model = load("canvas-classes")
    assert model.classes == tuple(sorted(world.OBJECTS))
    assert model.hints.objects == tuple(world.OBJECTS)
    assert not (WEIGHTS / "classes" / "vae").exists()
    assert model.sample(["frog"], [0])[0].size == (64, 64)


@shipped
def test_the_shipped_flow_draws_what_it_is_told_and_so_it_does_in_plain_diffusers(tmp_path: Path) -> None:
    model = load("canvas-flow")
    names = ("frog", "car", "pizza", "guitar")
    drawn = model.sample([world.prompt(name, "plain") for name in names], range(4), batch=1)
    assert [seen.object for seen in judge().look(drawn)] == list(names)
    model.save(tmp_path / "flow")
    pipe = StableDiffusion3Pipeline.from_pretrained(tmp_path / "flow", text_encoder_3=None, tokenizer_3=None)
    how = {"guidance_scale": model.hints.guidance, "max_sequence_length": model.hints.tokens}
    seed = torch.Generator().manual_seed(1)
    told = world.prompt("car", "plain")
    again = pipe(told, num_inference_steps=model.hints.steps, generator=seed, **how).images[0]
    assert again.tobytes() == drawn[1].tobytes()


@shipped
@painting
def test_the_evaluators_know_painted_pictures() -> None:
    from unlearnkit.canvas.check import check_evaluators

    found = check_evaluators(300)
    for name in ("judge", "guide", "clip"):
        assert found[name]["object"] >= 98.5
        assert found[name]["style"] >= 98.5
    assert min(share for name in ("judge", "guide") for share in found[f"{name}, unknown"].values()) >= 60


def test_something_known_is_named_only_when_it_is_sure_enough() -> None:
    names = ("cat", "dog", world.NOTHING)
    found = [_choice(torch.tensor(p), names) for p in ([0.3, 0.34, 0.36], [0.3, 0.36, 0.34], [0.4, 0.1, 0.5])]
    assert found == [2, 1, 0]
    assert (
        _choice(torch.tensor([0.2, 0.3]), names[:2]) == 1
    )  # an eye without the class always names something


@shipped
def test_the_check_needs_no_font_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painter, "FONT", Path("/nowhere/font.ttf"))
    monkeypatch.setattr(check, "few_cells", lambda: cells(1, objects=["frog"], styles=["plain"]))
    facts = check.check(tmp_path / "check", quick=True)
    assert "fonts-noto-color-emoji" in facts["skipped"] and "painted" not in facts
    assert facts["canvas"]["judge"]["object"] == facts["canvas"]["judge"]["style"] == 100.0
    assert (tmp_path / "check" / "check.json").is_file() and (tmp_path / "check" / "canvas.png").is_file()


def test_a_quick_check_has_every_object_and_every_style() -> None:
    assert {c.object for c in check.few_cells()} == set(world.OBJECTS)
    assert {c.style for c in check.few_cells()} == set(world.STYLES)
