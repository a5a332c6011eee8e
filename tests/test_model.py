from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from peft import LoraConfig
from processes import killed
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTokenizer

import kinds
import tiny
import unlearnkit.model.places
from unlearnkit.errors import EditError, InputError, ModelError
from unlearnkit.families.single import V1, XL
from unlearnkit.io.versions import versions
from unlearnkit.model import older, restore
from unlearnkit.model.edit import Edit
from unlearnkit.model.hints import FILE
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import denoise, sample_latents


@pytest.fixture(scope="session")
def original(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny.pipeline(words).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


# loading


def test_load_a_folder_with_hints(folder: Path) -> None:
    (folder / FILE).write_text("[sampling]\nsteps = 2\n")
    model = load(folder, device="cpu", dtype="bfloat16")
    assert (model.source, model.hints.steps, model.dtype) == (str(folder), 2, torch.bfloat16)
    assert model.device == torch.device("cpu")
    model.save(folder.parent / "again")
    assert (folder.parent / "again" / FILE).read_text() == "[sampling]\nsteps = 2\n"


@pytest.mark.parametrize("made", ["float32", "bfloat16"])
def test_an_edit_fits_its_model_in_every_dtype_and_no_other(made: str, folder: Path) -> None:
    model = load(folder, dtype=made)
    name, weight = next(iter(model.weights("text").items()))
    facts = {"base": model.fingerprint(), "dtype": made}
    edit = Edit({name: weight.detach().float() + 1}, facts)
    assert load(folder, edit=edit).dtype == model.dtype
    for told in ("float32", "bfloat16"):
        with load(folder, dtype=told, edit=edit).wearing(edit) as worn:
            assert worn.dtype == getattr(torch, told)
    with pytest.raises(EditError, match="made from another model"):
        load(folder, dtype="bfloat16", edit=Edit(edit.weights, facts | {"base": "0" * 64}))


def test_the_canvas_is_a_folder_in_the_package(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlearnkit.model.places, "CANVAS", folder)
    assert load("canvas").source == "canvas"
    monkeypatch.setattr(unlearnkit.model.places, "CANVAS", tmp_path / "none")
    with pytest.raises(ModelError, match="weights of canvas are not installed"):
        load("canvas")


def drop(file: Path, *, part: str) -> None:
    """Rewrite a weights file without the first weight whose name has ``part``."""
    weights = load_file(file)
    del weights[next(name for name in sorted(weights) if part in name)]
    save_file(weights, file, {"format": "pt"})


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


UNET = Path("unet/diffusion_pytorch_model.safetensors")
TEXT = Path("text_encoder/model.safetensors")
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    "index is not JSON": (lambda f: (f / "model_index.json").write_text("{"), "is damaged: it is not JSON"),
    "index is a list": (
        lambda f: (f / "model_index.json").write_text("[]"),
        "where a table belongs",
    ),
    "class": (
        lambda f: (f / "model_index.json").write_text('{"_class_name": "WuerstchenPipeline"}'),
        "is a 'WuerstchenPipeline', which is not supported: use one of StableDiffusionPipeline",
    ),
    "unet cut": (lambda f: cut(f / UNET), "damaged or missing"),
    "unet gone": (lambda f: (f / UNET).unlink(), "has no .safetensors weights"),
    "unet is text": (lambda f: (f / UNET).write_text("hello"), "damaged or missing"),
    "unet lacks a weight": (lambda f: drop(f / UNET, part="attn2.to_k"), "incomplete: unet has no value for"),
    "text encoder cut": (lambda f: cut(f / TEXT), "damaged or missing"),
    "text encoder lacks a weight": (
        lambda f: drop(f / TEXT, part="fc1.weight"),
        "incomplete: text_encoder has no value for",
    ),
    "tokenizer gone": (lambda f: shutil.rmtree(f / "tokenizer"), "folder tokenizer is missing"),
    "wrong hints": (lambda f: (f / FILE).write_text("[sampling]\nsteps = 0"), "sampling.steps = 0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_clear_line(damage: str, folder: Path) -> None:
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


class Trap:
    """A pickle that tells when it is opened."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.told,)


@pytest.mark.parametrize(
    ("weights", "old"), [(UNET, "diffusion_pytorch_model.bin"), (TEXT, "pytorch_model.bin")]
)
def test_a_pickle_is_never_opened(weights: Path, old: str, folder: Path) -> None:
    (folder / weights).unlink()
    told = folder / "opened"
    (folder / weights.parent / old).write_bytes(pickle.dumps(Trap(told)))
    with pytest.raises(ModelError, match="safetensors"):
        load(folder)
    assert not told.exists()


@pytest.mark.parametrize(
    "source", ["nowhere/at/all", "./nowhere", "nowhere", "", "own er/x", "owner/no-such-model"]
)
def test_a_model_that_is_not_there_is_one_clear_line(source: str) -> None:
    with pytest.raises(
        ModelError, match=r"was not found|is no path here, and the local cache|has no model_index"
    ) as caught:
        load(source)
    assert "\n" not in str(caught.value)


def test_single_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"convert it to .safetensors"):
        load(tmp_path / "model.ckpt")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"is damaged"):
        load(tmp_path / "model.safetensors")
    for name in (V1, XL):
        save_file({name: torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=r"needs settings from the hub: .*the hub is switched off here"):
            load(tmp_path / "model.safetensors")


def test_bad_device_and_dtype(folder: Path) -> None:
    with pytest.raises(InputError, match="dtype 'float64' is unknown"):
        load(folder, dtype="float64")
    for device in ("cuda:99", "gpu"):
        with pytest.raises(InputError, match=f"device '{device}' cannot be used"):
            load(folder, device=device)


def test_pipelines_that_must_not_be_edited(words: Path) -> None:
    def refused(message: str, harm: Callable[[Any], object]) -> None:
        pipe = tiny.pipeline(words)
        pipe = harm(pipe) or pipe
        with pytest.raises(ModelError, match=message):
            Model(pipe)

    refused("pipeline SimpleNamespace is not supported: use one of Stable", lambda pipe: SimpleNamespace())
    refused("is compiled", lambda pipe: pipe.unet.compile())
    refused("is compiled", lambda pipe: setattr(pipe, "unet", torch.compile(pipe.unet)))
    refused("is quantised", lambda pipe: setattr(pipe.unet, "is_quantized", True))
    refused(
        "is quantised",
        lambda pipe: pipe.unet.conv_in.register_parameter(
            "bias", torch.nn.Parameter(torch.zeros(8, dtype=torch.int8), requires_grad=False)
        ),
    )
    refused("is offloaded", lambda pipe: setattr(pipe.unet.conv_in, "_hf_hook", object()))
    refused(
        "is offloaded",
        lambda pipe: pipe.unet.enable_group_offload(
            onload_device=torch.device("cpu"), offload_type="leaf_level"
        ),
    )
    refused("no value for weight 'conv_in.weight'", lambda pipe: bool(pipe.unet.to("meta")) and pipe)
    refused(
        "prediction type 'sample'", lambda pipe: pipe.scheduler.register_to_config(prediction_type="sample")
    )
    refused("inpainting", lambda pipe: pipe.unet.register_to_config(in_channels=9))


def test_a_lora_is_refused(words: Path) -> None:

    pipe = tiny.pipeline(words)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"]))
    with pytest.raises(ModelError, match="carries a LoRA"):
        Model(pipe)


# text, noise, network


def test_text_is_encoded_once_and_as_the_pipeline_does(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = model.encode(["cat", "", "a photo of a dog", "cat"])
    assert found.shape == (4, tiny.LENGTH, tiny.WIDTH)
    assert torch.equal(found[0], found[3])
    assert torch.equal(found[2], model.pipe.encode_prompt("a photo of a dog", "cpu", 1, False)[0][0])
    monkeypatch.setattr(model.family, "encode", None)
    assert torch.equal(model.encode(["", "cat"]), found[[1, 0]])


def test_remembered_text_is_bounded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlearnkit.model.encoders, "REMEMBERED", 2)
    assert len(model.encode(["cat", "dog", "bear", "cat"])) == 4
    assert len(model._states._states) <= 2
    monkeypatch.setattr(unlearnkit.model.encoders, "ROOM", 4 * tiny.LENGTH * tiny.WIDTH)
    assert len(model.encode(["tree", "car"])) == 2
    assert list(model._states._states) == ["car"]


def test_last_token(model: Model) -> None:
    assert [model.last_token(text) for text in ("", "cat", "van gogh", "a photo of a cat")] == [0, 1, 2, 5]
    assert model.last_token("cat " * 50) == tiny.LENGTH - 2


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_its_prediction_agree_with_the_scheduler(
    prediction: str, make: Callable[..., Model]
) -> None:
    model = make(prediction=prediction)
    x, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    scheduler = model.pipe.scheduler
    noised = model.add_noise(x, noise, t)
    torch.testing.assert_close(noised, scheduler.add_noise(x, noise, t))
    output = noise if prediction == "epsilon" else scheduler.get_velocity(x, noise, t)
    torch.testing.assert_close(model.schedule.prediction(output, noised, t), noise, atol=1e-5, rtol=1e-4)
    states = model.encode(["cat"] * 3)
    with torch.no_grad():
        plain = model.pipe.unet(x, t, encoder_hidden_states=states).sample
        assert torch.equal(model.predict(x, t, states), plain)


def test_partial_denoising_is_the_pipelines(model: Model) -> None:
    states, null = model.encode(["cat", "dog"]), model.encode(["", ""])
    noise, seen = torch.randn(2, 4, 8, 8), []
    model.pipe(
        prompt_embeds=states, negative_prompt_embeds=null, latents=noise, num_inference_steps=5, guidance_scale=3.0,
        output_type="latent", callback_on_step_end=lambda pipe, i, t, kept: seen.append((t, kept["latents"])) or kept,
    )  # fmt: skip
    for stop in range(1, 5):
        x, t = denoise(model, noise, states, null, steps=5, guidance=3.0, stop=stop)
        torch.testing.assert_close(x, seen[stop - 1][1])
        assert t.tolist() == [seen[stop][0]] * 2
    x, t = denoise(model, noise, states, null, steps=5, guidance=3.0, stop=0)
    assert torch.equal(x, noise)


def test_pictures_to_latents(model: Model) -> None:
    images = model.sample(["cat", "dog"], [1, 2])
    pixels = model.pipe.image_processor.preprocess(images)
    expected = model.pipe.vae.encode(pixels).latent_dist.mean * model.pipe.vae.config.scaling_factor
    torch.testing.assert_close(model.latents(images), expected)


# sampling


def pixels(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(int)


def test_pictures_do_not_depend_on_the_batch(model: Model) -> None:
    prompts, seeds, seen = ["cat", "dog", "cat", "bear", "car"], [1, 2, 3, 4, 5], []
    one = model.sample(prompts, seeds, batch=1, tick=lambda *told: seen.append(told))
    assert seen == [(done, 5) for done in range(1, 6)]
    for batch in (2, 5, 32):
        # kernels that sum in another order for another shape may turn a pixel by 1 of 255, no more
        difference = np.abs(pixels(model.sample(prompts, seeds, batch=batch)) - pixels(one))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
    alone = model.sample(prompts[3:4], seeds[3:4], batch=1)[0]
    assert alone.tobytes() == one[3].tobytes()


def test_as_many_pictures_are_drawn_at_once_as_suits_their_size(model: Model) -> None:
    scale, at_once = model.pipe.vae_scale_factor, {}
    for side in (8, 32, 64, 128, 256):  # of a latent
        at_once[side] = Model(model.pipe, hints=replace(model.hints, size=side * scale)).batch
    assert at_once == {8: 32, 32: 16, 64: 4, 128: 1, 256: 1}
    seen: list[tuple[int, int]] = []
    large = Model(model.pipe, hints=replace(model.hints, size=64 * scale, steps=1))
    large.sample(["cat"] * 5, range(5), tick=lambda *told: seen.append(told))
    assert seen == [(4, 5), (5, 5)]
    assert sample_latents(large, ["cat"] * 5, range(5), steps=1, guidance=2.0).shape == (5, 4, 64, 64)


def test_sampling_is_plain_diffusers(model: Model) -> None:
    found = model.sample(["cat"], [9], steps=4, guidance=2.0, negative="dog")[0]
    model.pipe.set_progress_bar_config(disable=True)
    expected = model.pipe(
        "cat",
        negative_prompt="dog",
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(9),
    ).images[0]
    assert found.tobytes() == expected.tobytes()
    assert model.sample(["cat"], [9], guidance=0.0)[0].size == (16, 16)


def test_sampling_leaves_scheduler_and_bar_as_found(model: Model) -> None:
    model.pipe.scheduler = PNDMScheduler.from_config(model.pipe.scheduler.config, skip_prk_steps=True)
    scheduler, state = model.pipe.scheduler, dict(vars(model.pipe.scheduler))
    model.sample(["cat"], [1])
    assert model.pipe.scheduler is scheduler
    assert {name: id(value) for name, value in vars(scheduler).items()} == {
        n: id(v) for n, v in state.items()
    }
    assert not hasattr(model.pipe, "_progress_bar_config")
    model.pipe.set_progress_bar_config(disable=False, desc="mine")
    with pytest.raises(ZeroDivisionError):
        model.sample(["cat"], [1], tick=lambda done, total: 1 // 0)
    assert model.pipe._progress_bar_config == {"disable": False, "desc": "mine"}


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 1001}, {"batch": 0}, {"seeds": [1, 2]}])
def test_bad_sampling(bad: dict[str, Any], model: Model) -> None:
    with pytest.raises(InputError, match=r"out of range|same length"):
        model.sample(**{"prompts": ["cat"], "seeds": [1], **bad})


# weights


def test_wearing_swaps_pointers_nests_and_restores(model: Model) -> None:
    before = model.weights("xattn-kv")
    name = next(iter(before))
    first, second = (torch.full_like(before[name], value) for value in (1.0, 2.0))
    with model.wearing({name: first}):
        assert model.weights()[name].data_ptr() == first.data_ptr()
        with pytest.raises(KeyError), model.wearing({name: second}):
            assert model.weights()[name].data_ptr() == second.data_ptr()
            raise KeyError
        assert model.weights()[name].data_ptr() == first.data_ptr()
    assert all(weight is before[one] for one, weight in model.weights("xattn-kv").items())


def test_wearing_refuses_other_names_and_shapes(model: Model) -> None:
    before = {name: id(weight) for name, weight in model.weights().items()}
    name = next(iter(before))
    good = torch.zeros_like(model.weights()[name])
    with (
        pytest.raises(EditError, match=r"is not in this model .did you mean"),
        model.wearing({name: good, name + "x": good}),
    ):
        pass
    with pytest.raises(EditError, match="the model's is"), model.wearing({name: good[None]}):
        pass
    assert {name: id(weight) for name, weight in model.weights().items()} == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_reach_what_is_worn_and_nothing_else(
    dtype: torch.dtype, make: Callable[..., Model]
) -> None:
    model = make(dtype=dtype)
    masters = {
        name: one.detach().float().clone().requires_grad_() for name, one in model.weights("xattn-kv").items()
    }
    with model.frozen(), model.wearing(masters):
        out = model.eps(torch.randn(1, 4, 8, 8), torch.tensor([500]), model.encode(["cat"]))
        out.square().mean().backward()
    assert all(master.grad is not None and master.grad.dtype == torch.float32 for master in masters.values())
    assert all(weight.grad is None and weight.requires_grad for weight in model.weights().values())


def test_parts(model: Model) -> None:
    with pytest.raises(InputError, match=r"part 'xatn' is unknown .did you mean 'xattn'"):
        model.weights("xatn")
    assert set(model.weights()) == {f"unet.{name}" for name, _ in model.pipe.unet.named_parameters()}


def test_the_fingerprint_is_of_the_values_worn(make: Callable[..., Model]) -> None:
    model, same, other = make(), make(), make(seed=1)
    first = model.fingerprint()
    assert first == same.fingerprint() != other.fingerprint()
    half = make(dtype=torch.bfloat16)
    widened = make(dtype=torch.bfloat16)
    widened.pipe.to(dtype=torch.float32)
    assert half.fingerprint() == widened.fingerprint()
    name, weight = next(iter(model.weights().items()))
    with model.wearing({name: weight.detach() + 1}):
        assert model.fingerprint() != first
    assert model.fingerprint() == first
    with torch.no_grad():
        weight[0] += 1
    assert model.fingerprint() != first


def test_networks_beside_the_denoiser_go_and_come_back(model: Model) -> None:
    moves: list[tuple[str, str]] = []
    for part in ("unet", "vae", "text_encoder"):
        network = getattr(model.pipe, part)
        network.to = lambda place, part=part: moves.append((part, str(place)))
    with pytest.raises(KeyError), restore.auxiliary_on(model.pipe, model.denoiser, torch.device("meta")):
        assert sorted(moves) == [("text_encoder", "meta"), ("vae", "meta")]
        raise KeyError
    assert sorted(moves[2:]) == [("text_encoder", "cpu"), ("vae", "cpu")]
    with model.offload():
        assert len(moves) == 4  # on the CPU nothing goes


# saving


def test_save_writes_a_whole_folder_or_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, weight = next(iter(model.weights().items()))
    edit = Edit({name: weight.detach() * 2}, {"base": model.fingerprint()})
    model.save(tmp_path / "a" / "saved", edit)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["saved"]
    again = load(tmp_path / "a" / "saved")
    assert torch.equal(again.weights()[name], weight * 2)
    with pytest.raises(InputError, match="exists already"):
        model.save(tmp_path / "a" / "saved")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        model.save(tmp_path / "file" / "saved")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model.pipe, "save_pretrained", full)
    with pytest.raises(InputError, match="is full"):
        model.save(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"]


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_what_is_saved_opens_and_draws_for_every_family(kind: str, words: Path, tmp_path: Path) -> None:
    model = Model(kinds.pipeline(kind, words), source="toy")
    was = [name for name, module in model.denoiser.named_modules() if module._forward_hooks]
    model.save(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert [name for name, module in model.denoiser.named_modules() if module._forward_hooks] == was


@pytest.mark.parametrize(
    "dtypes", [("bfloat16", "bfloat16"), ("float16", "float16"), ("bfloat16", "float32")]
)
def test_what_is_saved_is_compared_in_any_dtype(
    dtypes: tuple[str, str], model: Model, tmp_path: Path
) -> None:
    pipe = model.pipe.to(dtype=getattr(torch, dtypes[0]))
    pipe.vae.to(dtype=getattr(torch, dtypes[1]))
    Model(pipe).save(tmp_path / "saved")
    (file,) = (tmp_path / "saved" / "vae").glob("*.safetensors")
    assert {str(weight.dtype) for weight in load_file(file).values()} == {f"torch.{dtypes[1]}"}


def test_a_folder_that_nothing_opens_is_not_kept(model: Model, tmp_path: Path) -> None:
    model.pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match=r"^(the pipeline does not open|text_encoder loses)[^\n]*$"):
        model.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_written_as_another_one_is_found(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = model.pipe.save_pretrained

    def damaging(folder: Path) -> None:
        plain(folder)
        file = next((folder / "vae").glob("*.safetensors"))
        held = load_file(file)
        save_file(held | {"decoder.conv_in.bias": held["decoder.conv_in.bias"] + 1}, file, {"format": "pt"})

    monkeypatch.setattr(model.pipe, "save_pretrained", damaging)
    with pytest.raises(ModelError, match=r"^weight 'decoder.conv_in.bias' of vae is another one once"):
        model.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("part", "named"), [("unet", "unet"), ("vae", "the VAE's decoder")])
def test_a_pipeline_that_draws_no_numbers_is_not_kept(
    part: str, named: str, model: Model, tmp_path: Path
) -> None:
    """Finite weights whose pictures are not."""
    network = getattr(model.pipe, part)
    last = network.conv_out if part == "unet" else network.decoder.conv_out
    last.weight.data.fill_(1e38)
    with pytest.raises(ModelError, match=f"^the saved pipeline draws nothing: {named} gives numbers"):
        model.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_that_fails_to_draw_is_not_kept(model: Model, tmp_path: Path) -> None:
    model.pipe.scheduler.register_to_config(timestep_spacing="backwards")
    with pytest.raises(ModelError, match=r"^the model's DDIMScheduler cannot draw in any number of steps"):
        model.save(tmp_path / "saved")
    model.pipe.scheduler.register_to_config(timestep_spacing="leading")
    with (
        patch.object(StableDiffusionPipeline, "__call__", side_effect=TypeError("what is\nthis")),
        pytest.raises(ModelError, match=r"^the pipeline does not draw once it is saved[^\n]*what is this$"),
    ):
        model.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_whose_scheduler_needs_several_steps_is_saved(model: Model, tmp_path: Path) -> None:
    model.pipe.scheduler = PNDMScheduler.from_config(model.pipe.scheduler.config)  # four or more
    model.save(tmp_path / "saved")
    assert type(load(tmp_path / "saved").pipe.scheduler) is PNDMScheduler


def test_a_saved_tokenizer_has_the_files_that_older_transformers_read(
    model: Model, words: Path, tmp_path: Path
) -> None:
    model.pipe.tokenizer.add_tokens(["<my-cat>"])
    model.pipe.text_encoder.resize_token_embeddings(len(model.pipe.tokenizer))
    model.save(tmp_path / "saved")
    written = tmp_path / "saved" / "tokenizer"
    assert json.loads((written / "vocab.json").read_text()) == json.loads((words / "vocab.json").read_text())
    assert (written / "merges.txt").read_text() == (words / "merges.txt").read_text()
    text = "a photo of <my-cat> the cat"
    wanted = model.pipe.tokenizer(text).input_ids
    assert CLIPTokenizer.from_pretrained(written)(text).input_ids == wanted
    (written / "tokenizer.json").unlink()
    assert CLIPTokenizer.from_pretrained(written)(text).input_ids == wanted


def test_saved_text_encoders_have_the_names_that_older_transformers_read(words: Path, tmp_path: Path) -> None:
    """transformers 4 takes a name without ``text_model.`` for no name of its own, and draws the weight at random."""
    for kind, wanted in (
        ("Stable Diffusion 1.x/2.x", {"text_encoder": ("text_model.",)}),
        ("Stable Diffusion XL", {"text_encoder": ("text_model.",), "text_encoder_2": ("text_",)}),
    ):
        folder = tmp_path / kind[-3:].strip("./")
        model = Model(kinds.pipeline(kind, words))
        model.save(folder)
        for part, fronts in wanted.items():
            names = list(load_file(folder / part / "model.safetensors"))
            assert all(name.startswith(fronts) and "text_model.text_model" not in name for name in names)
        text = model.pipe.text_encoder.state_dict()
        again = load(folder).pipe.text_encoder.state_dict()
        assert text.keys() == again.keys()
        assert all(torch.equal(again[name], weight) for name, weight in text.items())


def test_a_sharded_text_encoder_is_renamed_with_its_index(tmp_path: Path) -> None:
    names = {"embeddings.a": "one.safetensors", "text_model.b": "two.safetensors"}
    for name, file in names.items():
        save_file({name: torch.ones(2)}, tmp_path / file, {"format": "pt"})
    index = {"metadata": {"total_size": 16}, "weight_map": names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    older.longer_names(tmp_path, "", "text_model.")
    longer = {"text_model.embeddings.a": "one.safetensors", "text_model.b": "two.safetensors"}
    written = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert written == index | {"weight_map": longer}
    assert {name: file for file in names.values() for name in load_file(tmp_path / file)} == longer


def test_a_saved_pipeline_says_where_it_comes_from(model: Model, tmp_path: Path) -> None:
    name, weight = next(iter(model.weights().items()))
    told = {"method": "esd", "request": {"erase": ["kätzchen"]}, "seed": 3, "made": "2020-01-01"}
    facts = {"base": model.fingerprint(), "source": str(tmp_path / "home" / "model"), **told}
    edit = Edit({name: weight.detach() * 2}, facts)
    for folder in ("a", "b"):
        model.save(tmp_path / folder, edit)
    written = json.loads((tmp_path / "a" / "unlearnkit.json").read_text(encoding="utf-8"))
    assert written == {
        "base": model.fingerprint(),
        "source": "model",  # no path of the machine that made it
        **told,
        "edit": edit.hash(),
        "seal": edit.seal(),
        "versions": versions(),
    }
    (file,) = (tmp_path / "a" / "unet").glob("*.safetensors")
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["unlearnkit"]) == written
    same = [one for one in (tmp_path / "a").rglob("*") if one.is_file()]
    assert all(
        one.read_bytes() == (tmp_path / "b" / one.relative_to(tmp_path / "a")).read_bytes() for one in same
    )
    model.save(tmp_path / "c")
    assert not (tmp_path / "c" / "unlearnkit.json").exists()
    load(tmp_path / "c").save(tmp_path / "d")
    for one in (tmp_path / "d").rglob("*.json"):
        assert str(tmp_path) not in one.read_text(encoding="utf-8")


def sentences(pieces: list[tuple[str, float]]) -> bytes:
    """A file of SentencePiece: a protobuf message of pieces with scores and types, and the trainer's number of them."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    messages = [field(1, text.encode()) + b"\x15" + struct.pack("<f", score) for text, score in pieces]
    return b"".join(field(1, one + b"\x18\x01") for one in messages) + field(2, b"\x20\xac\x02")


def test_a_sentencepiece_file_of_the_source_is_kept(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is the tokenizer's: a link to something private in its place is not copied."""
    kinds.pipeline("PixArt-Sigma", words).save_pretrained(tmp_path / "model")
    whole = json.loads((tmp_path / "model" / "tokenizer" / "tokenizer.json").read_text())
    vocab = [(piece, score) for piece, score in whole["model"]["vocab"]]
    file, kept = Path("model", "tokenizer", "spiece.model"), Path("tokenizer", "spiece.model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private").write_bytes(b"my key")
    for number, (data, same) in enumerate(
        (
            (sentences(vocab), True),
            (sentences(vocab[1:]), False),
            (b"", False),
            (sentences(vocab)[:-9], False),
        )
    ):
        file.write_bytes(data)
        load("model").save(f"saved-{number}")
        assert (Path(f"saved-{number}") / kept).exists() == same
    assert (Path("saved-0") / kept).read_bytes() == sentences(vocab)
    file.unlink()
    file.symlink_to(tmp_path / "private")
    load("model").save("linked")
    assert not (Path("linked") / kept).exists()


@pytest.mark.parametrize(
    "place", ["unlearnkit.model.saving.write", "unlearnkit.model.saving.check", "pathlib.Path.replace"]
)
def test_a_killed_save_leaves_no_folder_once_it_is_done_again(
    place: str, model: Model, tmp_path: Path
) -> None:
    model.save(tmp_path / "whole")
    new = tmp_path / "a" / "b" / "saved"
    with patch(place, lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
        killed(lambda: model.save(new))
    assert not new.exists()
    (left,) = new.parent.iterdir()
    assert left.name.endswith(".part")
    model.save(new)
    assert list(new.parent.iterdir()) == [new]
    for file in (tmp_path / "whole").rglob("*.*"):
        assert (new / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()


def test_a_folder_whose_name_is_too_long_is_one_line(model: Model) -> None:
    with pytest.raises(InputError, match=r"^'é+…é+' cannot be used: the name is too long"):
        model.save("é" * 200)


def test_whoever_may_read_a_new_file_may_read_weights(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    Edit({}).save(tmp_path / "edit.safetensors")
    (tmp_path / "new").touch()
    written = [tmp_path / "edit.safetensors", *(tmp_path / "saved").rglob("*.*")]
    assert len(written) > 5
    assert {path.stat().st_mode for path in written} == {(tmp_path / "new").stat().st_mode}


def test_the_safety_checker_is_kept(words: Path, tmp_path: Path) -> None:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = small | {"image_size": 16, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(projection_dim=8, text_config=small, vision_config=vision)
    )
    parts = tiny.pipeline(words).components | {
        "safety_checker": checker.eval(),
        "feature_extractor": CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
    }
    Model(StableDiffusionPipeline(**parts)).save(tmp_path / "saved")
    names = load_file(tmp_path / "saved" / "safety_checker" / "model.safetensors")
    assert "vision_model.vision_model.pre_layrnorm.weight" in names  # as transformers 4 reads it
    assert not [name for name in names if name.startswith("vision_model.encoder.")]
    again = load(tmp_path / "saved")
    assert isinstance(again.pipe.safety_checker, StableDiffusionSafetyChecker)
    assert json.loads((tmp_path / "saved" / "model_index.json").read_text())["safety_checker"][1]
    assert len(again.sample(["cat"], [1], steps=1)) == 1
