"""Every family on tiny pipelines of the real classes: the seam, the contract of methods, and who can do what."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from processes import killed
from quick import quick
from test_contract import state

import kinds
import tiny
import unlearnkit
from alone import Draw
from tiny import HINTS
from unlearnkit.errors import InputError, ModelError
from unlearnkit.families import FAMILIES
from unlearnkit.families.mmdit import shift_of
from unlearnkit.methods import METHODS, edit_for, plan, resolve
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import denoise, sample_latents
from unlearnkit.runs.estimate import estimate
from unlearnkit.schema import Concept, Recipe, Request
from unlearnkit.training.job import Job
from unlearnkit.training.settings import Training

TITLES = [family.TITLE for family in FAMILIES]
NEW = TITLES[1:]
CLASSES = [title for title in TITLES if title.startswith("class-conditional")]
SIZE = replace(HINTS, size=16)
REQUEST = Request((Concept("cat", instead="bear"),), keep=(Concept("dog"),))
PLAIN = Request((Concept("cat"),), keep=REQUEST.keep)


def request_of(method: str) -> Request:
    return REQUEST if METHODS[method].REPLACES else PLAIN


every = pytest.mark.parametrize("title", TITLES)
new = pytest.mark.parametrize("title", NEW)
two = pytest.mark.parametrize("method", ["esd", "rgd"])


def settings_of(method: str, count: int = 2, **changes: Any) -> dict[str, Any]:
    """Quick ones, with losses that are raised without end."""
    known = METHODS[method].__dataclass_fields__
    return quick(method, count) | ({"cap": 1e9} if "cap" in known else {}) | changes


def trains(method: str) -> bool:
    return issubclass(METHODS[method], Training)


def opened(title: str, folder: Path, **changes: Any) -> Model:
    return Model(kinds.pipeline(title, folder, **changes), source="the model", hints=SIZE)


@pytest.fixture
def model(title: str, words: Path) -> Model:
    return opened(title, words)


def erase(model: Model, method: str, *, seed: int = 0, job: Job | None = None, **changes: Any) -> Any:
    settings = settings_of(method, **changes)
    return edit_for(model, request_of(method), method=method, settings=settings, seed=seed, job=job)


def picture(model: Model) -> bytes:
    return model.sample(["cat"], [7], batch=1)[0].tobytes()


# the seam


def test_a_tiny_pipeline_of_every_family() -> None:
    assert set(TITLES) == set(kinds.KINDS)


def test_no_file_above_the_seam_names_a_family() -> None:
    root = Path(unlearnkit.__file__).parent
    names = [name for family in FAMILIES for name in (*family.PIPELINES, family.__name__.rpartition(".")[2])]
    names += ["unet", "transformer", "attn2", "add_k_proj", "alphas_cumprod", "text_encoder", "class_labels"]
    for folder in ("methods", "parts", "training"):
        for path in (root / folder).glob("*.py"):
            code = path.read_text(encoding="utf-8")
            for name in names:
                assert not re.search(rf"\b{name}\b", code), f"{path} names {name}"


@pytest.mark.parametrize("patches", [1, 256, 1000, 4096, 9999])
def test_the_shift_of_a_flow_is_that_of_the_pipelines(patches: int) -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    assert shift_of({}, patches, 1.15) == pytest.approx(calculate_shift(patches, 256, 4096, 0.5, 1.15))
    own = {"base_image_seq_len": 64, "max_image_seq_len": 512, "base_shift": 0.1, "max_shift": 2.0}
    assert shift_of(own, patches, 1.16) == pytest.approx(calculate_shift(patches, *own.values()))


@every
def test_the_way_from_noise_to_picture_is_the_pipelines(title: str, model: Model) -> None:
    """Text, packing, times, guidance and steps all at once: the seam's own loop ends where the pipeline's does."""
    if type(model.pipe.scheduler).__name__ == "EulerDiscreteScheduler":
        model.pipe.scheduler = DDIMScheduler.from_config(model.pipe.scheduler.config, clip_sample=False)
        model = Model(model.pipe, hints=SIZE)
    states, null = model.encode(["cat"]), model.encode([""])
    for steps in (1, 4):
        found = sample_latents(model, ["cat"], [7], steps=steps, guidance=3.0)
        schedule = model.family.schedule(model.pipe, model.shape)
        x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(7))
        walk = schedule.timesteps(steps, model.device)
        with torch.no_grad():
            for t in walk:
                output = model.family.guided(model.predict, x, t.expand(1), states, null, 3.0)
                x = schedule.step(output, t, x)
        torch.testing.assert_close(x, found, atol=1e-4, rtol=1e-4)
    x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(7))
    _, t = denoise(model, x, states, null, steps=4, guidance=3.0, stop=2)
    assert t.tolist() == [walk[2]]


@every
def test_noise_goes_in_and_comes_out(title: str, model: Model) -> None:
    """By hand: a prediction that is right leaves the picture, and a straight way has the velocity noise - picture."""
    x, noise = torch.randn(3, *model.shape), torch.randn(3, *model.shape)
    t = torch.tensor([1, 400, 990])
    mixed, aim = model.add_noise(x, noise, t), model.training_target(x, noise)
    torch.testing.assert_close(model.predicted_x0(mixed, aim, t), x, atol=1e-4, rtol=1e-3)
    if "Flux" in title or "3/3.5" in title:
        share = (t + 1) / 1000
        shift = 3.0 if "3/3.5" in title else 2.718281828 ** (0.5 - (1.15 - 0.5) / (4096 - 256) * (256 - 16))
        sigma = (shift * share / (1 + (shift - 1) * share)).view(-1, 1, 1, 1)
        torch.testing.assert_close(mixed, (1 - sigma) * x + sigma * noise)
        torch.testing.assert_close(aim, noise - x)
    else:
        scheduler = DDIMScheduler.from_config(model.pipe.scheduler.config)
        torch.testing.assert_close(mixed, scheduler.add_noise(x, noise, t), atol=1e-5, rtol=1e-4)
        assert aim is noise


def test_static_shift_is_the_schedulers_table(words: Path) -> None:
    model = opened("Stable Diffusion 3/3.5", words)
    times = torch.arange(1000)
    torch.testing.assert_close(model.schedule.model_timestep(times), model.pipe.scheduler.timesteps.flip(0))


@every
def test_pictures_become_latents_and_back(title: str, model: Model) -> None:
    if not hasattr(model.pipe, "vae"):
        pixels = torch.rand(1, *model.shape)
        mean, spread = model.family.posterior(model.pipe, pixels)
        assert torch.equal(mean, pixels) and not spread.any()
        return
    x = 0.1 * torch.randn(1, *model.shape)
    config = model.pipe.vae.config
    pixels = model.pipe.vae.decode(x / config.scaling_factor + (config.shift_factor or 0.0)).sample
    mean, spread = model.family.posterior(model.pipe, pixels)
    made = model.pipe.vae.encode(pixels).latent_dist
    torch.testing.assert_close(mean, (made.mean - (config.shift_factor or 0.0)) * config.scaling_factor)
    torch.testing.assert_close(spread, (made.logvar / 2).exp() * config.scaling_factor)


@new
def test_parts_are_whole_and_apart(title: str, model: Model) -> None:
    parts = {part: set(model.weights(part)) for part in model.family.PARTS}
    assert parts["all"] == {
        f"{model.family.DENOISER}.{name}" for name, _ in model.denoiser.named_parameters()
    }
    assert all(parts.values())
    if "xattn" in parts:
        assert parts["xattn-kv"] < parts["xattn"]
        assert parts["xattn"] | parts["not-xattn"] == parts["all"]
        assert not parts["xattn"] & parts["not-xattn"]
    for part in model.family.LACKS.keys() - {"attention"}:
        with pytest.raises(InputError, match=f"has no part '{part}': "):
            model.weights(part)


@new
def test_text_matrices_read_the_text(title: str, model: Model) -> None:
    """What the part ``text`` is given in a pass are the states of ``Model.text``, and nothing else is read by it."""
    if "text" not in model.family.PARTS:
        pytest.skip("it has none")
    wanted, seen = model.text(["cat"]), []
    layers = {name.removesuffix(".weight").partition(".")[2] for name in model.weights("text")}
    for name, module in model.denoiser.named_modules():
        if name in layers:
            module.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model.eps(torch.randn(1, *model.shape), torch.tensor([500]), model.encode(["cat"]))
    assert len(seen) == len(layers)
    for given in seen:
        torch.testing.assert_close(given, wanted)


def test_without_a_prompt_sdxl_takes_zeros_if_told_so(words: Path) -> None:
    for zeros in (True, False):
        model = opened("Stable Diffusion XL", words, force_zeros=zeros)
        assert bool(model.encode([""]).any()) != zeros


def test_flux_schnell_has_no_guidance(words: Path) -> None:
    model = opened("Flux.1", words, schnell=True)
    x, t, states = torch.randn(1, *model.shape), torch.tensor([500]), model.encode(["cat"])
    low, high = (model.family.guided(model.predict, x, t, states, states, g) for g in (1.0, 4.0))
    assert torch.equal(low, high)
    assert Model(model.pipe).hints.steps == 4
    dev = opened("Flux.1", words)
    low, high = (dev.family.guided(dev.predict, x, t, states, states, g) for g in (1.0, 4.0))
    assert not torch.equal(low, high)
    assert torch.equal(low, dev.predict(x, t, states))


def test_negative_prompts(words: Path) -> None:
    for title in TITLES:
        model = opened(title, words)
        if title in CLASSES:
            with pytest.raises(InputError, match="takes no negative prompt"):
                model.sample(["cat"], [7], negative="dog")
        else:
            assert model.sample(["cat"], [7], negative="dog")[0].tobytes() != picture(model), title


@pytest.mark.parametrize(
    ("title", "none"), [("class-conditional DiT", 1000), ("class-conditional U-Net", 13)]
)
def test_a_class_is_a_name_or_a_number(title: str, none: int, model: Model) -> None:
    assert model.encode(["kitten", "7", "12", "car", ""])[:, 0, 0].tolist() == [7, 7, 12, 12, none]
    for wrong in ("kat", str(none), "a photo of a cat"):
        with pytest.raises(InputError, match=f"class '{wrong}' is unknown"):
            model.encode([wrong])
    assert model.hints.templates == {"object": ("{}",), "style": ("{}",)}
    plain = Model(model.pipe)
    assert plain.hints.objects == ("bear", "car", "cat", "dog", "kitten")
    assert plain.hints.steps == 50
    assert torch.equal(model.text(["cat"]), model.text(["7"]))
    assert not torch.equal(model.text(["cat"]), model.text(["dog"]))
    with pytest.raises(ModelError, match="the vocabulary has 'tree': no class has this name"):
        Model(model.pipe, hints=replace(SIZE, objects=("cat", "tree")))


def test_size(words: Path) -> None:
    assert Model(kinds.pipeline("Flux.1", words)).shape == (4, 128, 128)
    for title in ("Flux.1", *CLASSES):
        with pytest.raises(InputError, match="pictures of 18 pixels cannot be made"):
            Model(kinds.pipeline(title, words), hints=replace(HINTS, size=18))
    with pytest.raises(ModelError, match="is not supported: use a plain FlowMatch"):
        pipe = kinds.pipeline("Flux.1", words)
        pipe.scheduler = type(pipe.scheduler)(use_beta_sigmas=True)
        Model(pipe)


@pytest.mark.parametrize("title", ["Stable Diffusion 3/3.5", "Flux.1"])
def test_fewer_tokens_are_what_the_pipeline_draws_with_as_well(title: str, words: Path) -> None:
    few = Model(kinds.pipeline(title, words), hints=replace(SIZE, tokens=5, steps=2))
    stock = few.with_hints(replace(few.hints, tokens=None))
    assert stock.encode(["cat"]).shape[1] > few.encode(["cat"]).shape[1] > 5
    assert not torch.equal(few.encode([""])[0, :2], stock.encode(["cat"])[0, :2])
    seed = torch.Generator().manual_seed(0)
    how = {"num_inference_steps": 2, "guidance_scale": few.hints.guidance, "height": 16, "width": 16}
    drawn = few.pipe("cat", max_sequence_length=5, generator=seed, **how).images[0]
    assert few.sample(["cat"], [0], batch=1)[0].tobytes() == drawn.tobytes()
    with pytest.raises(ModelError, match="Stable Diffusion XL has no setting for the number of T5 tokens"):
        Model(kinds.pipeline("Stable Diffusion XL", words), hints=replace(SIZE, tokens=5))


# the contract


@new
@two
def test_1_to_5_and_7_to_9(title: str, method: str, words: Path) -> None:
    model = opened(title, words)
    model.encode(["cat"])  # a text encoder of transformers sets up its own recording when it is first called
    before, numbers = state(model), torch.get_rng_state()
    edit = erase(model, method, seed=3)
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), numbers)

    again, other = (erase(opened(title, words), method, seed=seed) for seed in (3, 4))
    assert again.hash() == edit.hash() != other.hash()

    settings = settings_of(method)
    part = model.weights(plan(model, request_of(method), method=method, settings=settings).part)
    assert edit.weights
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in edit.weights.values())
    assert all(value.shape == part[name].shape for name, value in edit.weights.items())

    base = picture(model)
    with model.wearing(edit):
        assert picture(model) != base
    assert picture(model) == base

    stock = resolve(model, REQUEST, method, {}).checkpointing
    recomputed = erase(model, method, seed=3, checkpointing=not stock)
    for name, value in edit.weights.items():
        torch.testing.assert_close(recomputed.weights[name], value)

    half = Model(kinds.pipeline(title, words).to(dtype=torch.bfloat16), hints=SIZE)
    rough = erase(half, method, seed=3)
    assert rough.weights.keys() <= part.keys()
    with half.wearing(rough):
        assert len(picture(half)) == len(base)


def test_an_estimate_counts_what_blocks_are_given_and_the_one_that_is_made_again(words: Path) -> None:
    """64 rows of 512 tokens and a picture's 16, each of 32 numbers in fp32, are given to a block."""

    def told(single: int, on: bool) -> int:
        model, settings = opened("Flux.1", words, single=single), {"batch": 64, "checkpointing": on}
        return estimate(model, Recipe("tiny", "finetune", PLAIN, settings_of("finetune", **settings))).memory

    block = told(2, False) - told(1, False)
    assert told(1, True) > block > told(1, False) / 3
    assert told(2, True) - told(1, True) == pytest.approx(64 * (512 + 16) * 32 * 4, rel=0.05)


@new
def test_9_the_erased_prompt_moves_more_than_the_kept_one(title: str, model: Model) -> None:
    changes = {
        "steps": 10,
        "retain_weight": 5.0,
        "start": "pictures",
        "pictures": 4,
        "retain_pictures": 4,
        "batch": 4,
    }
    edit = erase(model, "esd", **changes, lr=3e-3)
    moved = tiny.moved(model, edit)
    assert moved["cat"] > moved["dog"]


@new
def test_10_killed_and_resumed_it_gives_the_same_edit(title: str, model: Model, tmp_path: Path) -> None:
    def die(stage: str, done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    job = Job(folder=tmp_path, checkpoint_every=2)
    killed(lambda: erase(model, "esd", seed=5, steps=4, job=replace(job, progress=die)))
    assert not (tmp_path / "edit.safetensors").exists()
    assert erase(model, "esd", seed=5, steps=4, job=job).hash() == erase(model, "esd", seed=5, steps=4).hash()


def test_6_plain_diffusers_draws_the_same_pictures_without_unlearnkit(
    words: Path, draw_alone: Draw, tmp_path: Path
) -> None:
    for number, title in enumerate(TITLES):
        model = opened(title, words)
        edit = erase(model, "esd")
        model.save(folder := tmp_path / str(number), edit)
        with model.wearing(edit):
            drawn, worn = picture(model), model.fingerprint()
        assert load(folder, device="cpu").fingerprint() == worn
        assert draw_alone(folder, "cat", height=16, width=16) == drawn, title


# who can do what


def test_low_rank_updates_are_a_default_below_what_is_said(words: Path) -> None:
    for title in ("Stable Diffusion XL", "Stable Diffusion 3/3.5", "Flux.1"):
        model = Model(kinds.pipeline(title, words))
        for method, given, trains in (
            ("esd", {}, "lora"),  # and not the general hints' not-xattn
            ("esd", {"trains": "all"}, "all"),
            ("esd", {"rule": ("l2sp",)}, "not-xattn"),  # where factors cannot be held, what there was before
            ("salun", {}, "all"),
            ("selective_amnesia", {}, "all"),
            ("selective_amnesia", {"elastic": 0.0}, "lora"),
            ("rgd", {}, "lora"),
        ):
            assert resolve(model, REQUEST, method, given).trains == trains, (title, method)
        hints = replace(SIZE, methods={"esd": {"object": {"trains": "xattn"}}}, text="own")
        assert resolve(Model(model.pipe, hints=hints), REQUEST, "esd", {}).trains == "xattn"


def test_hints_of_all_training_lie_above_the_family_and_below_the_method(words: Path) -> None:
    pipe = kinds.pipeline("Stable Diffusion XL", words)
    told = {"checkpointing": False, "trains": "xattn", "pictures": 7}
    hints = replace(SIZE, training=told, methods={"esd": {"object": {"trains": "all"}}}, text="own")
    model = Model(pipe, hints=hints)
    found = resolve(model, REQUEST, "esd", {})
    assert (found.checkpointing, found.trains, found.pictures) == (False, "all", 7)
    assert resolve(model, REQUEST, "ca", {}).trains == "xattn"
    assert resolve(model, REQUEST, "ca", {"trains": "all"}).trains == "all"
    assert resolve(Model(pipe), REQUEST, "ca", {}).checkpointing is True
    resolve(model, REQUEST, "uce", {})  # has none of them
    for method in ("esd", "uce"):
        with pytest.raises(InputError, match="'stepz' is unknown"):
            resolve(Model(pipe, hints=replace(SIZE, training={"stepz": 3}, text="own")), REQUEST, method, {})


def test_an_attention_loss_is_refused_where_no_attention_can_be_read(words: Path) -> None:
    for title in ("Stable Diffusion 3/3.5", "Flux.1", "PixArt-Sigma", "class-conditional DiT"):
        model = opened(title, words)
        with pytest.raises(InputError, match="no cross-attention that can be read"):
            plan(model, REQUEST, method="duge", settings=settings_of("duge", attention_weight=1.0))
        own = resolve(model, REQUEST, "duge", settings_of("duge"))
        assert (own.attention_weight, own.output_weight) == (0.0, 1.0)


PAGE = Path(__file__).parent.parent / "docs" / "families.md"
HEAD = """# Methods and families

One method file serves every family of models. `tests/test_families.py` makes this table: it takes a step of every
method on a tiny pipeline of every family's real classes. *yes* means that the method runs, changes only the weights
that it names, and can be saved. It does not mean that a concept is gone. What is erased is measured on the small
models that ship with the package: the canvas (Stable Diffusion) and `canvas-flow` (Stable Diffusion 3) in
[methods.md](methods.md), and `canvas-classes` (DiT) in [classes.md](classes.md).

"""


def page(words: Path) -> str:
    notes: dict[str, int] = {}
    lines = ["| method | " + " | ".join(TITLES) + " |", "|---" * (len(TITLES) + 1) + "|"]
    models = [opened(title, words) for title in TITLES]
    for method in sorted(METHODS):
        cells = []
        for model in models:
            try:
                settings = settings_of(method, 1)
                plan(model, request_of(method), method=method, settings=settings)
                edit = edit_for(model, request_of(method), method=method, settings=settings)
                assert edit.weights or edit.hooks, (method, model.family.TITLE)
                part = edit.facts["settings"].get("trains", "text")
                unread = ", by its output" if edit.facts["settings"].get("attention_weight") == 0 else ""
                cells.append("yes" + (", low rank" if part == "lora" else "") + unread)
            except InputError as refused:
                cells.append(f"no ({notes.setdefault(str(refused), len(notes) + 1)})")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {reason}." for reason, number in notes.items())]
    lines += [
        "",
        "*low rank*: `trains=lora` is the family's default; `--set trains=...` changes it.",
        "",
        "*by its output*: these families have no counterpart of DUGE's attention loss. With joint attention, text",
        "and picture share one softmax, and the text changes from layer to layer. In PixArt a mask cuts every map at",
        "the end of the prompt. A class is not attended to at all. The family's defaults are `attention_weight=0`",
        "and `output_weight=1`: the target is the prediction for the empty prompt. Retain set, memory and",
        "regularisation stay. `attention_weight` above 0 is refused.",
        "",
        "A pipeline without one of its parts, such as Stable Diffusion 3 without T5, opens from a folder as it is.",
        "",
    ]
    return HEAD + "\n".join(lines)


def test_the_table_of_methods_and_families_is_what_happens(words: Path) -> None:
    found = page(words)
    if os.environ.get("UNLEARNKIT_WRITE"):
        PAGE.write_text(found, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == found, "make it anew: UNLEARNKIT_WRITE=1 and this test"
