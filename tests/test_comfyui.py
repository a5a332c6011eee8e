"""The nodes, and exported LoRAs, in ComfyUI's own code.

It is not part of this repository. ``UNLEARNKIT_COMFYUI`` names a folder with its sources, in an environment with what
they require; without it everything but the first tests is skipped.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import kinds
import real_sizes
from unlearnkit import Concept, Edit, InputError, Model, __version__, erase, save_lora
from unlearnkit.export.names import blocks, encoder, kohya

ROOT = Path(__file__).parent.parent
COMFYUI = os.environ.get("UNLEARNKIT_COMFYUI")
needs_comfyui = pytest.mark.skipif(not COMFYUI, reason="UNLEARNKIT_COMFYUI names no folder with ComfyUI")
pytestmark = pytest.mark.filterwarnings("ignore")
WIDTH, CPU = 32, torch.device("cpu")


def nodes() -> Any:
    """The pack, opened as ComfyUI opens a folder in ``custom_nodes``."""
    name = "unlearnkit_nodes"
    if name not in sys.modules:
        folder = ROOT / "comfyui"
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec and spec.loader
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def test_the_pack_has_what_comfyui_and_its_registry_read():
    pack, facts = nodes(), tomllib.loads((ROOT / "comfyui" / "pyproject.toml").read_text())
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node, node.FUNCTION)) and node.RETURN_TYPES and node.CATEGORY
    assert facts["project"]["version"] == __version__
    assert facts["project"]["dependencies"] == [f"unlearnkit=={__version__}"]
    assert facts["tool"]["comfy"]["DisplayName"]
    assert not any("comfy" in name for name in sys.modules if name.split(".")[0] == "comfy")


@pytest.fixture(scope="module")
def comfy() -> Any:
    """ComfyUI's package, on the CPU."""
    assert COMFYUI
    sys.path.insert(0, COMFYUI)
    from comfy.cli_args import args

    args.cpu = True
    for name in ("lora", "model_detection", "sd", "supported_models"):
        importlib.import_module(f"comfy.{name}")
    return sys.modules["comfy"]


# its names, at full size


def at_real_sizes(comfy: Any, kind: str, words: Path) -> tuple[Any, Any, Any]:
    """A pipeline of diffusers, and ComfyUI's MODEL and CLIP, all without numbers."""
    pipe = real_sizes.pipeline(kind, kinds.tiny.tokenizer(words))
    config = comfy.model_detection.model_config_from_diffusers_unet(pipe.unet.state_dict())
    model = comfy.model_patcher.ModelPatcher(config.get_model({}, device="meta"), CPU, CPU)
    clip = comfy.sd.CLIP(config.clip_target(), model_options={"initial_device": torch.device("meta")})
    return pipe, model, clip


@needs_comfyui
@pytest.mark.parametrize("kind", real_sizes.UNETS)
def test_comfyui_knows_every_layer_by_its_name(comfy: Any, kind: str, words: Path):
    """Every matrix and convolution of the U-Net, and every one in a layer of the text encoders, in its shape."""
    pipe, model, clip = at_real_sizes(comfy, kind, words)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, keys)
    there = model.model.state_dict() | clip.cond_stage_model.state_dict()
    large = kind == "Stable Diffusion XL"
    fronts, seen = blocks(pipe.unet) if large else {}, set()
    for name, weight in pipe.unet.state_dict().items():
        if weight.dim() > 1:
            key = keys[kohya(name.removesuffix(".weight"), fronts)]
            assert there[key].shape == weight.shape, name
            seen.add(key)
    for component in ("text_encoder", "text_encoder_2") if large else ("text_encoder",):
        for name, weight in getattr(pipe, component).state_dict().items():
            if ".layers." in name and weight.dim() > 1:
                key = keys[encoder(component, name.removesuffix(".weight"), large=large, peft=False)]
                assert there[key].shape == weight.shape, name
                seen.add(key)
    assert len(seen) == {"Stable Diffusion 1.5": 282 + 72, "Stable Diffusion XL": 794 + 264}[kind]


@needs_comfyui
@pytest.mark.parametrize("kind", real_sizes.UNETS)
def test_comfyui_loads_all_of_a_lora_and_of_an_edit(comfy: Any, kind: str, words: Path, tmp_path: Path):
    pipe, model, clip = at_real_sizes(comfy, kind, words)
    edit = real_sizes.changed(pipe)
    base = {name: real_sizes.own(pipe, name) for name in edit.weights}
    edit.save(tmp_path / "edit.safetensors")
    held = save_lora(Model(pipe), edit, tmp_path / "lora.safetensors", lose=0)
    assert held.tensors == len(edit.weights) > 30
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, keys)
    lora = load_file(tmp_path / "lora.safetensors")
    patches = comfy.lora.load_lora(lora, keys)
    assert len(patches) == len(edit.weights)
    assert set().union(*(patch.loaded_keys for patch in patches.values())) == set(lora)
    # the nodes read the model's own values, which are put in where there are numbers
    for name, value in base.items():
        place = keys[next(key for key in layer_names(pipe, name) if key in keys)]
        owner = model.model if place.startswith("diffusion_model.") else clip.cond_stage_model
        real_sizes.put(owner, place, value)
    for file in ("lora.safetensors", "edit.safetensors"):
        new, new_clip = graph().applied(model, clip, str(tmp_path / file), 1.0)
        for name, value in edit.weights.items():
            place = keys[next(key for key in layer_names(pipe, name) if key in keys)]
            patch = (new.patches | new_clip.patcher.patches)[place]
            found = comfy.lora.calculate_weight(patch, base[name].clone(), place)
            assert (found - value).abs().max() <= 1e-6 * value.abs().max(), name


def layer_names(pipe: Any, name: str) -> list[str]:
    component, _, rest = name.partition(".")
    module, large = rest.removesuffix(".weight"), hasattr(pipe, "text_encoder_2")
    if component == "unet":
        return [kohya(module, blocks(pipe.unet) if large else {})]
    return [encoder(component, module, large=large, peft=False)]


def graph() -> Any:
    """The pack's second file, which needs ComfyUI."""
    nodes()
    return importlib.import_module("unlearnkit_nodes.graph")


# a small model that both run, with ComfyUI's own tokenizer


CLIP = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "dtype": torch.float32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "use_spatial_transformer": True,
    "legacy": False,
    "transformer_depth": [0, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1],
    "use_linear_in_transformer": False,
    "context_dim": WIDTH,
    "adm_in_channels": None,
}


@pytest.fixture
def both(comfy: Any) -> tuple[Model, Any, Any]:
    """One small Stable Diffusion as unlearnkit's Model and as ComfyUI's MODEL and CLIP."""
    assert COMFYUI
    words = CLIPTokenizer.from_pretrained(Path(COMFYUI) / "comfy" / "sd1_tokenizer", model_max_length=77)
    ends = {"bos_token_id": 49406, "eos_token_id": 49407, "vocab_size": 49408}
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=kinds.vae(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP, **ends)).eval(),
        tokenizer=words,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
        ).eval(),
        scheduler=DDIMScheduler(**kinds.BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for name, weight in pipe.unet.named_parameters():
        if ".attn2.to_v." in name:
            weight.data *= 30  # so that the text matters
    config = comfy.supported_models.SD15(UNET)
    config.unet_config["num_heads"] = 2
    net = config.get_model({}, device="cpu")
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    values = {names[name]: weight for name, weight in pipe.unet.state_dict().items()}
    net.diffusion_model.load_state_dict(values)
    options = {"clip_l_model_config": {**CLIP, "hidden_act": "quick_gelu"}, "dtype": torch.float32}
    clip = comfy.sd.CLIP(config.clip_target(), model_options=options)
    text = {
        name.removeprefix("text_model."): weight for name, weight in pipe.text_encoder.state_dict().items()
    }
    clip.load_sd({f"text_model.{name}": weight for name, weight in text.items()})
    return Model(pipe), comfy.model_patcher.ModelPatcher(net, CPU, CPU), clip


X = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))


def ours(model: Model, prompt: str = "a cat") -> Tensor:
    with torch.no_grad():
        return model.predict(X, torch.tensor([500]), model.encode([prompt]))


def theirs(comfy: Any, model: Any, clip: Any, prompt: str = "a cat") -> Tensor:
    """The prediction of a MODEL as ComfyUI's sampler asks for it, with its patches and wrappers."""
    context = clip.encode_from_tokens(clip.tokenize(prompt))
    comfy.model_management.load_models_gpu([model])
    options = {"wrappers": model.wrappers}
    with torch.no_grad():
        return model.model.diffusion_model(X, torch.tensor([500]), context, transformer_options=options)


@needs_comfyui
def test_both_run_the_same_model(comfy: Any, both: tuple[Model, Any, Any]):
    model, graph_model, clip = both
    for prompt in ("a cat", "", "a (cat) by van gogh"):
        states = graph().Texts(clip).text([prompt])
        torch.testing.assert_close(states, model.text([prompt]), atol=1e-5, rtol=1e-5)
        assert graph().Texts(clip).last_token(prompt) == model.last_token(prompt)
    torch.testing.assert_close(theirs(comfy, graph_model, clip), ours(model), atol=1e-5, rtol=1e-4)


@needs_comfyui
@pytest.mark.parametrize("method", ["uce", "adavd"])
def test_an_edit_acts_as_in_unlearnkit(comfy: Any, both: tuple[Model, Any, Any], method: str, tmp_path: Path):
    """Weights and guards, whole and in part, and nothing is left on the model before."""
    model, graph_model, clip = both
    edit = erase(model, "cat", method=method, **({"slope": 0.0} if method == "adavd" else {}))
    edit.save(tmp_path / "edit.safetensors")
    before = theirs(comfy, graph_model, clip)
    new, _ = graph().applied(graph_model, None, str(tmp_path / "edit.safetensors"), 1.0)
    with model.wearing(edit):
        wanted = ours(model)
    assert (wanted - before).abs().max() > 1e-3
    torch.testing.assert_close(theirs(comfy, new, clip), wanted, atol=1e-5, rtol=1e-4)
    none, _ = graph().applied(graph_model, None, str(tmp_path / "edit.safetensors"), 0.0)
    torch.testing.assert_close(theirs(comfy, none, clip), before, atol=1e-6, rtol=1e-5)
    assert torch.equal(theirs(comfy, graph_model, clip), before)


@needs_comfyui
@pytest.mark.parametrize("instead", ["", "dog"])
def test_uce_in_the_graph_is_unlearnkits(comfy: Any, both: tuple[Model, Any, Any], instead: str):
    model, graph_model, clip = both
    erase_ = [Concept("cat", instead=instead or None), Concept("kitten", instead=instead or None)]
    edit = erase(model, erase_, method="uce", keep=["bear"], reach=0.0)
    node = nodes().NODE_CLASS_MAPPINGS["UnlearnkitEraseUCE"]()
    (new,) = node.erase(graph_model, clip, "cat\n\nkitten", "object", 1.0, instead, "bear\n")
    assert len(new.patches) == len(edit.weights) == 8
    keys = comfy.lora.model_lora_keys_unet(graph_model.model, {})
    there = graph_model.model.state_dict()
    for name, value in edit.weights.items():
        key = keys[kohya(name.removeprefix("unet.").removesuffix(".weight"), {})]
        found = comfy.lora.calculate_weight(new.patches[key], there[key].clone(), key)
        assert (found - value).abs().max() <= 1e-6 * value.abs().max()
    (twice,) = node.erase(new, clip, "dog", "object", 1.0)  # on what the first node left
    assert all(len(patches) == 2 for patches in twice.patches.values())


@needs_comfyui
def test_what_would_do_nothing_is_refused_in_one_line(
    comfy: Any, both: tuple[Model, Any, Any], tmp_path: Path
):
    model, graph_model, clip = both
    draws = torch.Generator().manual_seed(0)
    texts = {name: weight.detach().clone() for name, weight in model.weights("text-encoder").items()}
    texts = {
        name: weight + 0.1 * torch.randn(weight.shape, generator=draws) for name, weight in texts.items()
    }
    Edit(texts).save(tmp_path / "text.safetensors")
    save_lora(
        model, Edit({k: v for k, v in texts.items() if v.dim() > 1}), tmp_path / "te.safetensors", lose=0
    )
    for file in ("text.safetensors", "te.safetensors"):
        new, new_clip = graph().applied(graph_model, clip, str(tmp_path / file), 1.0)
        assert not new.patches and len(new_clip.patcher.patches) >= 12
        with pytest.raises(InputError, match=r"connect CLIP"):
            graph().applied(graph_model, None, str(tmp_path / file), 1.0)
    Edit({"unet.nowhere.weight": torch.zeros(2, 2)}).save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"changes unet.nowhere.weight, which this model does not have"):
        graph().applied(graph_model, clip, str(tmp_path / "other.safetensors"), 1.0)
    name = next(iter(model.weights("text")))
    Edit({name: torch.zeros(2, 2)}).save(tmp_path / "shape.safetensors")
    with pytest.raises(InputError, match=r"is \(2, 2\), this model's is \(64, 32\)"):
        graph().applied(graph_model, clip, str(tmp_path / "shape.safetensors"), 1.0)
    node = nodes().NODE_CLASS_MAPPINGS["UnlearnkitEraseUCE"]()
    with pytest.raises(InputError, match="the request erases nothing"):
        node.erase(graph_model, clip, " \n", "object", 1.0)
    with pytest.raises(InputError, match="too long for the text encoder"):
        node.erase(graph_model, clip, "cat " * 80, "object", 1.0)
    with pytest.raises(InputError, match="instead = nearest needs predictions"):
        node.erase(graph_model, clip, "cat", "object", 1.0, "nearest")
