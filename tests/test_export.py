"""An edit as other tools take it: loaded again by them, a LoRA or a checkpoint gives the model that wears the edit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import killed
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_run import command
from torch import Tensor

import kinds
from unlearnkit import Edit, InputError, Model, chain, erase, load, save_checkpoint, save_lora
from unlearnkit.errors import EditError
from unlearnkit.export.lora import SKETCH, factors
from unlearnkit.export.names import blocks, kohya
from unlearnkit.runs.recipes import dump_recipe
from unlearnkit.schema import Concept, Recipe, Request

LOADERS = [kind for kind in kinds.KINDS if not kind.startswith(("PixArt", "class"))]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def changed(
    model: Model, rank: int, belongs: Callable[[str], bool] = lambda name: True, part: str = "all"
) -> Edit:
    """An edit that moves the matrices and convolutions of a part by products of that rank."""
    weights = {}
    for number, (name, weight) in enumerate(model.weights(part).items()):
        if weight.dim() > 1 and belongs(name):
            flat = weight.detach().flatten(1)
            move = drawn(len(flat), rank, seed=number) @ drawn(rank, flat.shape[1], seed=-number)
            weights[name] = (flat + 0.01 * move).view_as(weight)
    return Edit(weights, {"base": model.fingerprint(), "source": model.source})


def attention(name: str) -> bool:
    return "attn" in name or "transformer_blocks" in name


# a LoRA


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.parametrize("kind", LOADERS)
def test_diffusers_loads_every_matrix_of_a_lora(kind: str, words: Path, tmp_path: Path) -> None:
    model = Model(kinds.pipeline(kind, words))
    edit = changed(model, 2)
    held = save_lora(model, edit, tmp_path / "a.safetensors", lose=0)
    assert (held.tensors, held.rank, held.left_out) == (len(edit.weights), 2, ())
    assert held.kohya == (kind in ("Stable Diffusion 1.x/2.x", "Stable Diffusion XL"))
    pipe = kinds.pipeline(kind, words)
    pipe.load_lora_weights(str(tmp_path / "a.safetensors"))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    found = Model(pipe).weights("all")
    for name, weight in model.weights("all").items():
        torch.testing.assert_close(found[name], edit.weights.get(name, weight), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.parametrize("kind", LOADERS)
def test_diffusers_loads_a_lora_of_text_encoders(kind: str, words: Path, tmp_path: Path) -> None:
    model = Model(kinds.pipeline(kind, words))
    edit = changed(model, 2, lambda name: ".block." not in name, part="text-encoder")
    held = save_lora(model, edit, tmp_path / "a.safetensors", lose=0)
    assert (held.tensors, held.rank, held.left_out) == (len(edit.weights), 2, ())
    pipe = kinds.pipeline(kind, words)
    pipe.load_lora_weights(str(tmp_path / "a.safetensors"))
    pipe.fuse_lora(components=list(edit.components))
    pipe.unload_lora_weights()
    for name, weight in Model(pipe).values(edit.weights).items():
        torch.testing.assert_close(weight, edit.weights[name], atol=1e-5, rtol=1e-4)


def test_what_no_lora_holds_of_a_t5_is_refused(words: Path, tmp_path: Path) -> None:
    model = Model(kinds.pipeline("Flux.1", words))
    edit = changed(model, 2, lambda name: ".block." in name, part="text-encoder")
    with pytest.raises(InputError, match=r"and the like that no LoRA contains \(text_encoder_2"):
        save_lora(model, edit, tmp_path / "a.safetensors")


def test_exports_say_where_they_come_from(model: Model, tmp_path: Path) -> None:
    edit = changed(model, 1, attention)
    told = {"method": "esd", "request": {"erase": []}, "seed": 3, "source": str(tmp_path / "model")}
    edit = Edit(edit.weights, edit.facts | told)
    save_lora(model, edit, tmp_path / "a.safetensors")
    own = {name: weight.detach() for name, weight in model.weights("all").items()}
    save_file(own, tmp_path / "old.safetensors")
    save_checkpoint(model, edit, tmp_path / "old.safetensors", tmp_path / "b.safetensors")
    for file in ("a.safetensors", "b.safetensors"):
        with safe_open(tmp_path / file, framework="pt") as opened:
            facts = json.loads(opened.metadata()["unlearnkit"])
        assert {name: facts[name] for name in told} == told | {"source": "model"}
        assert (facts["base"], facts["edit"], facts["seal"]) == (
            *(model.fingerprint(), edit.hash()),
            edit.seal(),
        )
        assert facts["versions"]["unlearnkit"]


def test_names_of_sdxl_are_those_of_the_unet_that_kohya_trains(words: Path, tmp_path: Path) -> None:
    model = Model(kinds.pipeline("Stable Diffusion XL", words))
    held = save_lora(model, changed(model, 1), tmp_path / "a.safetensors", lose=0)
    names = {name.split(".")[0].removeprefix("lora_unet_") for name in load_file(tmp_path / "a.safetensors")}
    assert {
        *("input_blocks_0_0", "time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2", "out_2"),
        *("input_blocks_1_0_in_layers_2", "input_blocks_1_0_emb_layers_1", "input_blocks_2_0_op"),
        *("input_blocks_3_0_skip_connection", "input_blocks_3_1_transformer_blocks_0_attn2_to_k"),
        *("middle_block_0_out_layers_3", "middle_block_1_proj_in", "middle_block_2_in_layers_2"),
        *("output_blocks_0_1_transformer_blocks_0_ff_net_2", "output_blocks_1_2_conv"),
        *("output_blocks_1_1_transformer_blocks_0_attn1_to_out_0", "output_blocks_3_0_in_layers_2"),
    } <= names
    assert not [name for name in names if name.startswith(("down_", "up_", "mid_"))]
    outer = {name.split(".")[1] for name in held.outer}
    assert (len(held.outer), outer) == (6, {"conv_in", "conv_out", "time_embedding", "add_embedding"})
    assert 0 < held.outer_share < 1


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_a_unet_of_sdxl_in_another_layout_is_loaded_whole(words: Path, tmp_path: Path) -> None:
    """Its upsampler has no attention beside it: there Stability's names would not be read, so it has diffusers'."""

    def other() -> Any:
        pipe = kinds.pipeline("Stable Diffusion XL", words)
        config = dict(pipe.unet.config)
        config["down_block_types"] = config["down_block_types"][::-1]
        config["up_block_types"] = config["up_block_types"][::-1]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pipe.register_modules(unet=UNet2DConditionModel(**config).eval())
        return pipe

    model = Model(other())
    edit = changed(model, 2)
    held = save_lora(model, edit, tmp_path / "a.safetensors", lose=1e-5)
    assert not held.kohya and blocks(model.denoiser) == {}
    pipe = other()
    pipe.load_lora_weights(str(tmp_path / "a.safetensors"))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    found = Model(pipe).weights("all")
    for name, weight in edit.weights.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-4)


def test_names_of_sdxl_itself() -> None:
    """The layout of Stability's U-Net as sd-scripts' map has it, for three levels of two layers."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(8, 16, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=2,
            norm_num_groups=4,
            attention_head_dim=2,
            transformer_layers_per_block=(1, 2, 3),
        )
        plain = UNet2DConditionModel(norm_num_groups=4, block_out_channels=(8, 8, 8, 8), attention_head_dim=2)
    fronts = blocks(unet)
    for ours, theirs in {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": "input_blocks_4_1_transformer_blocks_0_"
        "attn2_to_k",
        "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
        "down_blocks.2.resnets.1.conv1": "input_blocks_8_0_in_layers_2",
        "mid_block.attentions.0.transformer_blocks.2.ff.net.0.proj": "middle_block_1_transformer_blocks_2_ff_"
        "net_0_proj",
        "up_blocks.0.upsamplers.0.conv": "output_blocks_2_2_conv",
        "up_blocks.2.resnets.2.conv_shortcut": "output_blocks_8_0_skip_connection",
        "up_blocks.1.attentions.2.proj_out": "output_blocks_5_1_proj_out",
    }.items():
        assert kohya(ours, fronts) == f"lora_unet_{theirs}"
    assert blocks(plain) == {}  # twelve blocks a side, of which diffusers would take the tenth for the first
    assert kohya("conv_in", {}) == "lora_unet_conv_in"


def test_a_lora_of_a_closed_form_needs_no_more_rank_than_texts(model: Model, tmp_path: Path) -> None:
    edit = erase(model, "cat", method="uce", templates=False, tokens="last", neighbours=0)
    assert save_lora(model, edit, tmp_path / "a.safetensors", lose=0).rank == 1


def test_one_rank_for_all_with_its_scale_beside(model: Model, tmp_path: Path) -> None:
    one = changed(model, 1, lambda name: name.endswith("to_k.weight"))
    two = changed(model, 3, lambda name: name.endswith("to_v.weight"))
    both = Edit(one.weights | two.weights, one.facts)
    save_lora(model, both, tmp_path / "a.safetensors", lose=0)
    tensors = load_file(tmp_path / "a.safetensors")
    assert {tensor.item() for name, tensor in tensors.items() if name.endswith(".alpha")} == {3.0}
    downs = {name: tensor for name, tensor in tensors.items() if name.endswith("lora_down.weight")}
    assert {len(down) for down in downs.values()} == {3}
    assert all(name.startswith("lora_unet_") and "." not in name.split(".lora_down")[0] for name in downs)
    assert any(not down[1:].any() for down in downs.values())
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["unlearnkit"])["edit"] == both.hash()


def test_factors_by_hand() -> None:
    """diag(3, 4): its squared singular values are 9 and 16 of 25, so rank 1 keeps 64 %."""
    change = torch.diag(torch.tensor([3.0, 4.0]))
    up, down = factors(change, None, 0.36)
    torch.testing.assert_close(up @ down, torch.diag(torch.tensor([0.0, 4.0])))
    assert factors(change, None, 0.35)[0].shape == (2, 2)
    assert factors(change, 1, 0.0)[0].shape == (2, 1)


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    room=st.floats(0, 1),
    seed=st.integers(0, 2**20),
)
def test_no_more_is_lost_than_there_is_room_for(shape: tuple[int, int], room: float, seed: int) -> None:
    change = drawn(*shape, seed=seed)
    up, down = factors(change, None, room)
    lost = (change - up @ down).square().sum() / change.square().sum()
    assert lost <= room + 1e-5
    values = torch.linalg.svdvals(change.double()).square()
    if (less := up.shape[1] - 1) > 0:  # and no smaller rank would do
        assert values[less:].sum() > (room - 1e-6) * values.sum()


@pytest.mark.parametrize("shape", [(300, 280), (280, 300)])
def test_a_large_matrix_is_looked_at_through_a_sketch(shape: tuple[int, int]) -> None:
    low = drawn(shape[0], 5) @ drawn(5, shape[1], seed=1)
    up, down = factors(low, None, 1e-9)
    assert up.shape[1] == 5
    torch.testing.assert_close(up @ down, low, atol=1e-4, rtol=1e-4)
    full = drawn(*shape)  # which no sketch holds
    up, down = factors(full, None, 1e-9)
    assert min(shape) > 4 * SKETCH
    torch.testing.assert_close(up @ down, full, atol=1e-4, rtol=1e-4)


def test_what_a_lora_cannot_hold(model: Model, words: Path, tmp_path: Path) -> None:
    file, edit = tmp_path / "a.safetensors", changed(model, 4, attention)
    with pytest.raises(InputError, match=r"^rank 2 loses [\d.]+ % of the change, more than 1 %"):
        save_lora(model, edit, file, rank=2)
    held = save_lora(model, edit, tmp_path / "b.safetensors", rank=2, lose=0.9)
    assert 0.1 < held.lost < 0.9
    with pytest.raises(InputError, match="exists already: choose a new file"):
        save_lora(model, edit, tmp_path / "b.safetensors")
    bias = next(name for name in model.weights("all") if name.endswith("to_out.0.bias"))
    beside = Edit(edit.weights | {bias: model.weights("all")[bias].detach() + 1.0}, edit.facts)
    with pytest.raises(
        InputError,
        match=r"^a LoRA without the 1 biases, norms and the like that no LoRA contains "
        r"\(unet\..*to_out\.0\.bias, \.\.\.\)",
    ):
        save_lora(model, beside, file)
    assert save_lora(model, beside, tmp_path / "c.safetensors", lose=0.9).left_out == (bias,)
    with pytest.raises(InputError, match="rank 0 is out of range"):
        save_lora(model, edit, file, rank=0)
    with pytest.raises(InputError, match="lose 2 is out of range: use 0 to 1"):
        save_lora(model, edit, file, lose=2)
    with pytest.raises(EditError, match="changes no weight"):
        save_lora(model, Edit({}), file)
    with pytest.raises(EditError, match="was made from"):
        save_lora(model, Edit(edit.weights, {"base": "another"}), file)
    other = Model(kinds.pipeline("PixArt-Sigma", words))
    with pytest.raises(InputError, match="PixArtSigmaPipeline of diffusers loads no LoRA"):
        save_lora(other, changed(other, 1), file)


def test_ranks_lose_no_more_than_what_is_left_out_leaves(model: Model, tmp_path: Path) -> None:
    """A bias that is half of what may be lost leaves the other half."""
    edit, own = changed(model, 40, attention), model.weights("all")
    moved = sum(float((weight - own[name].detach()).square().sum()) for name, weight in edit.weights.items())
    bias = next(name for name in own if name.endswith("to_out.0.bias"))
    move = torch.zeros_like(own[bias])
    move[0] = (moved * 0.15 / 0.85) ** 0.5
    both = Edit(edit.weights | {bias: own[bias].detach() + move}, edit.facts)
    assert 0.2 < save_lora(model, both, tmp_path / "a.safetensors", lose=0.3).lost <= 0.3


# a checkpoint


def renamed(name: str) -> str:
    """The name that Stable Diffusion's first code gave a weight of a U-Net of two levels, a layer a block."""
    inside = (
        *(("norm1.", "in_layers.0."), ("conv1.", "in_layers.2."), ("time_emb_proj.", "emb_layers.1.")),
        *(("norm2.", "out_layers.0."), ("conv2.", "out_layers.3."), ("conv_shortcut.", "skip_connection.")),
    )
    fronts = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    }
    for level in range(2):
        fronts[f"down_blocks.{level}.resnets.0"] = f"input_blocks.{1 + 2 * level}.0"
        fronts[f"down_blocks.{level}.attentions.0"] = f"input_blocks.{1 + 2 * level}.1"
        for layer in range(2):
            fronts[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{2 * level + layer}.0"
            fronts[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{2 * level + layer}.1"
    fronts["up_blocks.0.upsamplers.0.conv"] = "output_blocks.1.2.conv"
    front = next(front for front in fronts if name.startswith(f"{front}."))
    rest = name.removeprefix(f"{front}.")
    if ".resnets." in front:
        for ours, theirs in inside:
            rest = theirs + rest.removeprefix(ours) if rest.startswith(ours) else rest
    return f"model.diffusion_model.{fronts[front]}.{rest}"


@pytest.fixture
def original(model: Model, tmp_path: Path) -> Path:
    """The toy model's U-Net as the first code wrote it, in float16, with something beside."""
    held = {renamed(name): weight.half() for name, weight in model.pipe.unet.state_dict().items()}
    held |= {"first_stage_model.decoder.conv_in.bias": drawn(7), "model_ema_decay": torch.tensor(1)}
    save_file(held, tmp_path / "original.safetensors", {"format": "pt"})
    return tmp_path / "original.safetensors"


def test_diffusers_opens_the_checkpoint_with_the_edit_in_it(
    model: Model, original: Path, tmp_path: Path
) -> None:
    edit = changed(model, 40)
    held = save_checkpoint(model, edit, original, tmp_path / "new.safetensors")
    assert (held.tensors, held.rank) == (len(edit.weights), 0)
    model.pipe.unet.save_config(tmp_path / "unet")
    opened = UNet2DConditionModel.from_single_file(
        str(tmp_path / "new.safetensors"), config=str(tmp_path), subfolder="unet", local_files_only=True
    )
    for name, weight in opened.state_dict().items():
        wanted = edit.weights.get(f"unet.{name}", model.weights("all")[f"unet.{name}"])
        torch.testing.assert_close(weight.float(), wanted.detach().half().float(), atol=0, rtol=0)


def test_all_else_stays_as_it_was_byte_for_byte(model: Model, original: Path, tmp_path: Path) -> None:
    name = next(name for name in model.weights("all") if name.endswith("attn2.to_v.weight"))
    edit = changed(model, 3, lambda one: one == name)
    save_checkpoint(model, edit, original, tmp_path / "new.safetensors")
    old, new = (_data(path) for path in (original, tmp_path / "new.safetensors"))
    header, start = _header(original)
    begin, end = header[renamed(name.removeprefix("unet."))]["data_offsets"]
    assert start
    assert new[:begin] == old[:begin]
    assert new[end:] == old[end:]
    assert new[begin:end] == edit.weights[name].half().numpy().tobytes()
    header, start = _header(tmp_path / "new.safetensors")
    assert start % 8 == 0
    assert header["__metadata__"]["format"] == "pt"
    assert json.loads(header["__metadata__"]["unlearnkit"])["edit"] == edit.hash()


def _header(path: Path) -> tuple[dict[str, dict[str, list[int]]], int]:
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    return json.loads(path.read_bytes()[8 : 8 + length]), 8 + length


def _data(path: Path) -> bytes:
    return path.read_bytes()[_header(path)[1] :]


def test_matrices_that_stand_together_in_one_tensor(words: Path, tmp_path: Path) -> None:
    """As Flux's own files hold queries, keys and values."""
    model = Model(kinds.pipeline("Flux.1", words))
    front = "transformer.transformer_blocks.0.attn"
    three = [f"{front}.{name}" for name in ("to_q", "to_k", "to_v")]
    own = model.weights("all")
    fused = {
        "double_blocks.0.img_attn.qkv.weight": torch.cat([own[f"{one}.weight"].detach() for one in three]),
        "double_blocks.0.img_attn.qkv.bias": torch.cat([own[f"{one}.bias"].detach() for one in three]),
    }
    save_file({name: value.bfloat16() for name, value in fused.items()}, tmp_path / "old.safetensors")
    edit = Edit(
        {f"{three[1]}.{leaf}": own[f"{three[1]}.{leaf}"].detach() + 1.0 for leaf in ("weight", "bias")}
    )
    assert (
        save_checkpoint(model, edit, tmp_path / "old.safetensors", tmp_path / "new.safetensors").tensors == 2
    )
    width = len(own[f"{three[1]}.bias"])
    for name, new in load_file(tmp_path / "new.safetensors").items():
        wanted = fused[name].clone()
        wanted[width : 2 * width] = edit.weights[f"{three[1]}.{name.rsplit('.', 1)[1]}"]
        torch.testing.assert_close(new, wanted.bfloat16(), atol=0, rtol=0)


def test_a_model_in_half_precision_knows_its_file_in_full(
    make: Callable[..., Model], model: Model, tmp_path: Path
) -> None:
    save_file(
        {name: weight.detach() for name, weight in model.weights("all").items()}, tmp_path / "old.safetensors"
    )
    half = make(dtype=torch.bfloat16)
    edit = changed(half, 2, attention)
    edit = Edit({name: weight.float() for name, weight in edit.weights.items()}, edit.facts)
    save_checkpoint(half, edit, tmp_path / "old.safetensors", tmp_path / "new.safetensors")
    new = load_file(tmp_path / "new.safetensors")
    assert all(torch.equal(new[name], weight) for name, weight in edit.weights.items())


def test_checkpoints_that_cannot_take_the_edit(model: Model, original: Path, tmp_path: Path) -> None:
    edit, new, other = changed(model, 2, attention), tmp_path / "new.safetensors", tmp_path / "b.safetensors"
    with pytest.raises(InputError, match="exists already: choose a new file"):
        save_checkpoint(model, edit, original, original)
    with pytest.raises(InputError, match="was not found"):
        save_checkpoint(model, edit, tmp_path / "none.safetensors", new)
    other.write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="cannot be read"):
        save_checkpoint(model, edit, other, new)
    held = load_file(original)
    save_file(held | {"model_ema.diffusion_modelout2bias": drawn(4)}, other)
    with pytest.raises(InputError, match="has the network twice"):
        save_checkpoint(model, edit, other, new)
    name = next(iter(edit.weights))
    key = renamed(name.removeprefix("unet."))
    save_file(held | {"again": held[key].clone()}, other)
    with pytest.raises(InputError, match=f"the values of {name} twice, in .*(again|{key}).* and "):
        save_checkpoint(model, edit, other, new)
    save_file(held | {key: held[key] + 1}, other)
    with pytest.raises(
        InputError, match=f"lacks 1 of the {len(edit.weights)} weights that change, such as {name}"
    ):
        save_checkpoint(model, edit, other, new)
    own = model.weights("all")
    small = Edit({name: weight.detach() * 1.0001 for name, weight in own.items() if name in edit.weights})
    with pytest.raises(InputError, match=r"loses [\d.]+ % of the change, more than 1 %"):
        save_checkpoint(model, small, original, new)
    assert not new.exists()
    assert not list(tmp_path.glob("*.part"))


# the command


@pytest.fixture(scope="module")
def made(make: Callable[..., Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a run; treat it as read-only."""
    folder = tmp_path_factory.mktemp("made")
    make().save(folder / "model")
    edit = changed(load(folder / "model"), 2, attention)
    edit.save(folder / "run" / "edit.safetensors")
    recipe = Recipe("../model", "esd", Request((Concept("cat"),)), {})
    (folder / "run" / "recipe.toml").write_text(dump_recipe(recipe))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A folder with an edit of rank 2 and a recipe that names the model beside it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


@pytest.mark.parametrize("source", ["FOLDER", "somebody/something", "../model", None])
def test_what_an_edit_says_of_its_model_is_never_followed(
    source: str | None, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named by a stranger's edit, the right model in a folder is not opened either."""
    edit = Edit.load(run / "edit.safetensors")
    source = str(tmp_path / "model") if source == "FOLDER" else source
    facts = {name: value for name, value in edit.facts.items() if name != "source"}
    hostile = Edit(edit.weights, facts | ({"source": source} if source else {}))
    hostile.save(tmp_path / "hostile" / "edit.safetensors")
    new = tmp_path / "a.safetensors"
    for place in (tmp_path / "hostile", tmp_path / "hostile" / "edit.safetensors"):
        assert command("export", place, "--out", new) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "has no recipe.toml in its folder: name its model" in said
        assert "--model" in said
        if source:
            assert source[-20:] in said
    assert not new.exists()
    assert command("export", tmp_path / "hostile", "--model", tmp_path / "model", "--out", new) == 0


@pytest.mark.parametrize("facts", ["null", "[]", '{"source": 3}', '{"source": null}', '{"base": 3}', "["])
def test_facts_of_a_wrong_kind_end_an_export_in_one_line(
    facts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"unet.a": torch.zeros(2)}, tmp_path / "a.safetensors", {"unlearnkit": facts})
    assert command("export", tmp_path / "a.safetensors", "--out", tmp_path / "b.safetensors") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is damaged" in said


def test_the_recipes_model_must_be_the_edits(
    run: Path, make: Callable[..., Model], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "a.safetensors"
    edit = Edit.load(run / "edit.safetensors")
    Edit(edit.weights).save(run / "edit.safetensors")
    assert command("export", run, "--out", new) == 2
    assert "does not say the fingerprint of its model" in capsys.readouterr().err
    edit.save(run / "edit.safetensors")
    make(seed=1).save(tmp_path / "other")
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("../model", "../other"))
    assert command("export", run, "--out", new) == 2
    assert "was made from" in capsys.readouterr().err
    assert not new.exists()


def test_a_chain_is_exported_on_its_own_model(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "model")
    chain.init(tmp_path / "chain", str(tmp_path / "model"), method="uce", pictures=0)
    chain.add(tmp_path / "chain", "cat")
    assert command("export", tmp_path / "chain", "--out", tmp_path / "a.safetensors") == 0
    found = load_file(tmp_path / "a.safetensors")
    moved = (tmp_path / "model").rename(tmp_path / "moved")
    told = ["export", tmp_path / "chain", "--model", moved, "--out", tmp_path / "b.safetensors"]
    assert command(*told) == 0
    again = load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(again[name], value) for name, value in found.items())


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["export", str(run), "--out"]
    assert command(*told, str(tmp_path / "lora.safetensors"), "--lose", "0") == 0
    assert "a LoRA of rank 2 for" in (said := capsys.readouterr().out)
    assert "nothing of the change is lost" in said
    assert "outside the" not in said
    edit = changed(load(tmp_path / "model"), 1, lambda name: "conv_in" in name or attention(name))
    edit.save(tmp_path / "outer.safetensors")
    outer = ["export", tmp_path / "outer.safetensors", "--model", tmp_path / "model"]
    assert command(*outer, "--out", tmp_path / "outer-lora.safetensors") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of these matrices, such as unet.conv_in, with" in said
    assert "sd-scripts and diffusers up to 0.35 do not" in said
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    assert command(*told, str(tmp_path / "new.safetensors"), "--into", str(weights)) == 0
    assert "diffusion_pytorch_model.safetensors with" in capsys.readouterr().out
    assert command(*told, str(tmp_path / "c.safetensors"), "--into", str(weights), "--rank", "3") == 2
    assert "--rank is for a LoRA" in capsys.readouterr().err
    assert command(*told, str(tmp_path / "c.safetensors"), "--rank", "1") == 2
    assert "rank 1 loses" in capsys.readouterr().err


LONG = "é" * 200


@pytest.mark.parametrize("place", [*("RUN", "--out", "--into", "--model"), "deep"])
def test_names_that_are_too_long_are_one_line(
    place: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: dict[str, str | Path] = {"RUN": run, "--out": tmp_path / "a.safetensors"}
    deep = Path("/".join([str(tmp_path), *["x" * 200] * 30])[:4090])  # with a file's name it is too long
    words |= {"RUN": deep} if place == "deep" else {place: f"{LONG}.safetensors"}
    told = [part for name, word in words.items() if name != "RUN" for part in (name, word)]
    assert command("export", words["RUN"], *told) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said) < 500
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    """The file of each kind of export that nobody killed."""
    return {}


def half(*given: Any) -> None:
    """Half of a file, and the temporary one of safetensors' own beside it."""
    place = Path(next(one for one in given if isinstance(one, str | Path)))
    for name in (place.name, ".tmpabcdef"):
        (place.parent / name).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def dead(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("kind", "place", "death"),
    [
        *(
            ("lora", "unlearnkit.export.lora.factors", dead),
            ("lora", "unlearnkit.io.tensors.save_file", half),
        ),
        *(
            ("lora", "os.link", dead),
            ("checkpoint", "unlearnkit.io.tensors.shutil.copyfileobj", dead),
        ),
        *(
            ("checkpoint", "unlearnkit.export.checkpoint._rows", dead),
            ("checkpoint", "os.link", dead),
        ),
    ],
)
def test_a_killed_export_leaves_nothing_once_it_is_done_again(
    kind: str, place: str, death: Callable[..., None], run: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """And a folder that does not exist yet is made."""
    further = {
        "lora": [],
        "checkpoint": ["--into", tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"],
    }[kind]
    new = tmp_path / "deep" / "down" / "new.safetensors"
    if kind not in whole:
        assert command("export", run, "--out", tmp_path / "whole.safetensors", *further) == 0
        whole[kind] = (tmp_path / "whole.safetensors").read_bytes()

    def dies() -> None:
        with patch(place, death):
            command("export", run, "--out", new, *further)

    killed(dies)
    assert not new.exists()
    assert command("export", run, "--out", new, *further) == 0
    assert [path.name for path in new.parent.iterdir()] == [new.name]
    assert new.read_bytes() == whole[kind]


def strange(name: str, shape: tuple[int, ...]) -> Callable[[Edit], Edit]:
    return lambda edit: Edit(edit.weights | {name: torch.zeros(shape)}, edit.facts)


KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize("into", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            strange("unet.\x1b[31m" + "x" * 300, (2,)),
            r"weight 'unet\.\\x1b\[31mx+… is not in this model",
        ),
        (strange(KEY, (2, 3)), rf"weight '{KEY}' of the edit is \(2, 3\), the model's is \(16, 16\)"),
        (lambda edit: Edit({}, edit.facts), "the edit changes no weight"),
    ],
)
def test_edits_that_fit_by_their_word_alone_are_one_line(
    change: Callable[[Edit], Edit],
    said: str,
    into: bool,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(Edit.load(run / "edit.safetensors")).save(run / "edit.safetensors")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    told = ["export", run, "--out", tmp_path / "a.safetensors", *(["--into", weights] if into else [])]
    assert command(*told) == 2
    assert re.match(said, (line := capsys.readouterr().err))
    assert line.count("\n") == 1
    assert not (tmp_path / "a.safetensors").exists()


def test_an_edit_with_the_models_own_values_changes_nothing(model: Model, tmp_path: Path) -> None:
    own = {name: weight.detach().clone() for name, weight in model.weights().items()}
    with pytest.raises(EditError, match="changes no weight"):
        save_lora(model, Edit(own), tmp_path / "a.safetensors")


def test_a_checkpoint_takes_no_value_that_its_precision_cannot_hold(
    model: Model, original: Path, tmp_path: Path
) -> None:
    name, weight = next(iter(model.weights().items()))
    large = weight.detach().clone()
    large[0, 0] = 1e6  # float16 ends at 65504
    with pytest.raises(InputError, match=f"cannot store {name}: a new value is too large for float16"):
        save_checkpoint(model, Edit({name: large}), original, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_where_a_file_goes_is_checked_before_any_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with patch("unlearnkit.model.load.load", dead):  # the model is not opened for these
        for place, said in {
            "a.pt": "end it in .safetensors",
            "file/a.safetensors": "file' is a file",
            "run/edit.safetensors": "exists already",
        }.items():
            assert command("export", "run", "--out", place) == 2
            assert said in (line := capsys.readouterr().err)
            assert line.count("\n") == 1
    os.mkfifo(tmp_path / "pipe")
    for into in ("pipe", "model"):
        assert command("export", "run", "--out", "a.safetensors", "--into", into) == 2
        assert "is no file" in capsys.readouterr().err
    assert command("export", "run", "--out", "~/deep/a.safetensors") == 0
    source = "model/unet/diffusion_pytorch_model.safetensors"
    assert command("export", "run", "--out", "~/b.safetensors", "--into", source) == 0
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    assert command("export", "../run", "--out", "a.safetensors") == 0  # its recipe says ../model
    home = tmp_path / "home" / "deep" / "a.safetensors"
    assert (tmp_path / "away" / "a.safetensors").read_bytes() == home.read_bytes()
    assert not (tmp_path / "~").exists()


def test_a_tensor_of_no_numbers_in_a_checkpoint_is_left_alone(run: Path, tmp_path: Path) -> None:
    weights = load_file(tmp_path / "model/unet/diffusion_pytorch_model.safetensors")
    save_file(weights | {"empty": torch.zeros(0, 4)}, tmp_path / "more.safetensors")
    told = ["export", str(run), "--out", str(tmp_path / "out.safetensors"), "--into"]
    assert command(*told, str(tmp_path / "more.safetensors")) == 0
    assert load_file(tmp_path / "out.safetensors")["empty"].shape == (0, 4)


def test_a_file_that_another_process_made_meanwhile_is_not_lost(model: Model, tmp_path: Path) -> None:
    new = tmp_path / "a.safetensors"

    def meanwhile(done: int, total: int) -> None:
        new.write_text("of another process")

    with pytest.raises(InputError, match="exists already"):
        save_lora(model, changed(model, 1, attention), new, tick=meanwhile)
    assert new.read_text() == "of another process"
