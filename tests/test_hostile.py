"""A model folder never runs code and never chooses what is opened: one line, whatever its files say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import kinds
import saved
from unlearnkit.cli import main
from unlearnkit.errors import ModelError
from unlearnkit.families.index import ALLOWED, REQUIRED
from unlearnkit.model.load import load
from unlearnkit.model.places import CANVAS
from unlearnkit.runs.recipes import load_recipe

CODE = "from pathlib import Path\nPath({marker!r}).touch()\nclass Thing:\n    pass\n"
CUSTOM = "is not supported|custom|code|never run|only unlearnkit"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A sound model whose folder has a module that leaves a mark where it is imported."""
    folder = shutil.copytree(saved.folder(), tmp_path / "model")
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        (place / "helper.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    return folder


def index_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model_index.json").read_text())
    return found


def with_entry(folder: Path, part: str, entry: Any) -> None:
    (folder / "model_index.json").write_text(json.dumps(index_of(folder) | {part: entry}))


def without_code(folder: Path) -> None:
    for file in folder.glob("*/helper.py"):
        file.unlink()


PARTS = [
    "unet",
    "vae",
    "text_encoder",
    "tokenizer",
    "scheduler",
    "safety_checker",
    "feature_extractor",
    "extra",
]


@pytest.mark.parametrize("part", [*PARTS, "_class_name"])
@pytest.mark.parametrize("entry", [["helper", "Thing"], ["os", "system"], ["builtins", "eval"]], ids=str)
def test_no_component_is_of_a_class_that_is_not_expected(
    part: str, entry: list[str], hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(hostile)  # so that the module could be found
    without_code(hostile)
    with_entry(hostile, part, entry)
    with pytest.raises(ModelError, match=CUSTOM) as refused:
        load(hostile)
    assert "\n" not in str(refused.value)
    assert not (hostile.parent / "ran").exists() and "helper" not in sys.modules


ENTRIES: list[Any] = [
    *(None, [], ["diffusers"], ["diffusers", None], ["diffusers", "UNet2DConditionModel", "x"], [1, 2]),
    *([["diffusers"], "UNet2DConditionModel"], {"a": 1}, 3, "unet", ["torch", "load"], ["diffusers", "../x"]),
    *(
        ["diffusers", "AutoencoderTiny"],
        ["transformers", "AutoModel"],
        ["diffusers.models", "UNet2DConditionModel"],
    ),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_an_entry_that_is_no_known_class_is_refused(entry: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.folder(), tmp_path / "model")
    with_entry(folder, "unet", entry)
    with pytest.raises(ModelError) as refused:
        load(folder)
    assert "\n" not in str(refused.value) and "unet" in str(refused.value)


def test_code_beside_the_weights_is_refused_by_name(hostile: Path) -> None:
    with pytest.raises(ModelError, match=r"has code \(\w+/helper.py\), which is never run"):
        load(hostile)
    without_code(hostile)
    assert load(hostile)  # what lies beside the index is not looked at
    assert not (hostile.parent / "ran").exists()


@pytest.mark.parametrize(
    "file", ["unet/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json"]
)
def test_a_configuration_that_asks_for_code_is_refused(file: str, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.folder(), tmp_path / "model")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {"auto_map": {"AutoModel": "helper.Thing"}}))
    with pytest.raises(ModelError, match="auto_map"):
        load(folder)


OPENING = """
import os, sys
import unlearnkit
from unlearnkit.cli import main
for folder in sys.argv[1:]:
    os.chdir(folder)
    try:
        unlearnkit.load(".")
    except unlearnkit.ModelError as error:
        print(error)
    try:
        main(["erase", ".", "--concept", "cat", "--method", "uce", "--dry-run"])
    except SystemExit as stopped:
        print(stopped.code)
"""


def test_nothing_runs_with_the_folder_on_the_path(hostile: Path) -> None:
    """By the call and by the command, whether the model has all of its parts or borrows them."""
    without_code(hostile)
    with_entry(hostile, "vae", ["helper", "Thing"])
    borrows = Path(shutil.copytree(hostile, hostile.with_name("borrows")))
    (borrows / "borrowed.json").write_text(json.dumps({"vae": "."}))
    both = [str(hostile), str(borrows)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*both, *sys.path])}
    asked = [sys.executable, "-c", OPENING, *both]
    done = subprocess.run(asked, cwd=hostile, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and not (hostile.parent / "ran").exists(), done.stderr
    opened, code, opened_too, code_too = done.stdout.splitlines()
    assert "helper" in opened and "helper" in opened_too and code == code_too == "2"
    assert [("helper" in line) for line in done.stderr.splitlines()[-2:]] == [True, True]


def test_only_the_canvas_borrows(tmp_path: Path) -> None:
    folder = shutil.copytree(CANVAS.with_name("flow"), tmp_path / "flow")
    with pytest.raises(ModelError, match="only unlearnkit's own canvas may have"):
        load(folder)
    assert load("canvas-flow").classes is None


@pytest.mark.parametrize("file", ["pipeline/unet/config.json", "pipeline/text_encoder/model.safetensors"])
def test_a_damaged_canvas_is_found(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnkit.families import borrowing, opening

    weights = tmp_path / "weights"
    shutil.copytree(CANVAS, weights / "pipeline")
    shutil.copy(CANVAS.parent / "SHA256SUMS", weights)
    data = bytearray((weights / file).read_bytes())
    data[-1] ^= 1
    (weights / file).write_bytes(data)
    for module in (borrowing, opening):
        monkeypatch.setattr(module, "SHIPPED", weights)
    opening._check_shipped.cache_clear()
    with pytest.raises(ModelError, match=rf"{file} is damaged"):
        load(weights / "pipeline")
    opening._check_shipped.cache_clear()


HARMS: dict[str, tuple[str, str]] = {
    "index: null": ("model_index.json", "null"),
    "index: empty": ("model_index.json", "{}"),
    "index: nested": ("model_index.json", "[" * 100_000),
    "index: not UTF-8": ("model_index.json", "\udcff"),
    "class is a list": ("model_index.json", '{"_class_name": ["helper", "Pipeline"]}'),
    "class is a table": ("model_index.json", '{"_class_name": {}}'),
    "borrowed: not JSON": ("borrowed.json", "{"),
    "borrowed: null": ("borrowed.json", "null"),
    "borrowed: nested": ("borrowed.json", "[" * 100_000),
    "config: nested": ("unet/config.json", "[" * 100_000),
    "config: a list": ("vae/config.json", "[1]"),
    "config: vast": (
        "text_encoder/config.json",
        '{"model_type": "clip_text_model", "vocab_size": 1000000000000}',
    ),
    "tokenizer: not JSON": ("tokenizer/tokenizer.json", "{"),
    "tokenizer: vast": (
        "tokenizer/tokenizer_config.json",
        '{"tokenizer_class": "CLIPTokenizer", "model_max_length": 1000000000000}',
    ),
    "tokenizer: none": (
        "tokenizer/tokenizer_config.json",
        '{"tokenizer_class": "CLIPTokenizer", "model_max_length": 0}',
    ),
    "tokenizer: a word": (
        "tokenizer/tokenizer_config.json",
        '{"tokenizer_class": "CLIPTokenizer", "model_max_length": "x"}',
    ),
    "hints: nested": ("unlearnkit.toml", "a = " + "[" * 1000 + "]" * 1000),
    "hints: vast": ("unlearnkit.toml", "[sampling]\nsize = 0x" + "f" * 5000),
    "hints: large": ("unlearnkit.toml", "[sampling]\nsize = 1000000"),
    "hints: no template": ("unlearnkit.toml", "[templates]\nobject = []"),
    "hints: not finite": ("unlearnkit.toml", "[sampling]\nguidance = inf"),
    "hints: long": ("unlearnkit.toml", '[vocabulary]\nobjects = ["' + "x" * 10_000 + '"]'),
    "hints: vast in a list": ("unlearnkit.toml", "[training]\nlr = [0x" + "f" * 5000 + "]"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_is_damaged_or_enormous_is_one_line(
    harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(saved.folder(), tmp_path / "model")
    file, text = HARMS[harm]
    (folder / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SystemExit) as stopped:
        main(["generate", str(folder), "--prompt", "cat", "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and len(said.err.splitlines()) == 1, said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_weight_that_is_missing_is_found_in_shards_too(part: str, tmp_path: Path, words: Path) -> None:
    kinds.stable_diffusion(words).save_pretrained(tmp_path / "model", max_shard_size="20KB")
    shard = sorted((tmp_path / "model" / part).glob("*-of-*"))[0]
    tensors = load_file(shard)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, shard, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"incomplete: {part} has no value for|damaged or missing"):
        load(tmp_path / "model")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.folder(), tmp_path / "model")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match="no regular file"):
        load(folder)


def test_a_token_that_the_text_encoder_does_not_have_is_found_on_opening(tmp_path: Path) -> None:
    """As a tokenizer has it that came with a textual inversion, beside the first text encoder."""
    folder = shutil.copytree(saved.folder(), tmp_path / "model")
    file = folder / "tokenizer" / "tokenizer_config.json"
    more = {"added_tokens_decoder": {"99999": {"content": "<cat-toy>", "special": False}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    with pytest.raises(ModelError, match=r"tokenizer has a token of number .* they do not belong together"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_found_on_opening(value: float, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.folder(), tmp_path / "model")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = value
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"vae holds a value in .* that is not a finite number"):
        load(folder)


def test_a_folder_with_one_variant_opens(tmp_path: Path, words: Path) -> None:
    pipe = kinds.stable_diffusion(words)
    pipe.save_pretrained(tmp_path / "model", variant="fp16", max_shard_size="20KB")
    assert load(tmp_path / "model").fingerprint() == load(tmp_path / "model", variant="fp16").fingerprint()
    pipe.save_pretrained(tmp_path / "model", variant="bf16")
    with pytest.raises(ModelError, match=r"has the variants bf16, fp16: choose one"):
        load(tmp_path / "model")
    pipe.save_pretrained(tmp_path / "model")
    assert load(tmp_path / "model")


def test_a_variant_that_was_chosen_is_that_of_the_whole_run(tmp_path: Path, words: Path) -> None:
    model = str(tmp_path / "model")
    kinds.stable_diffusion(words).save_pretrained(model)
    other = kinds.stable_diffusion(words)
    torch.nn.init.ones_(other.unet.conv_out.bias)
    other.save_pretrained(model, variant="ema")
    run, more = ["--out", str(tmp_path / "run")], ["--pictures", "0", "--no-pipeline"]
    chosen = ["erase", model, "--concept", "cat", "--method", "uce", "--variant"]
    for words_, code in (
        ([*chosen, "em", *run, *more], 2),
        ([*chosen, "ema", *run, *more], 0),
        (["erase", "--resume", *run, *more], 0),
        (["verify", run[1]], 0),
        (["export", run[1], "--out", str(tmp_path / "lora.safetensors")], 0),
        (["generate", model, "--prompt", "cat", "--edit", f"{run[1]}/edit.safetensors", "--steps", "1"], 2),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words_)
        assert stopped.value.code == code, words_
    assert load_recipe(tmp_path / "run" / "recipe.toml").variant == "ema"
    assert load(model, variant="ema").fingerprint() != load(model).fingerprint()
    chain = ["--method", "uce", "--pictures", "0", "--variant", "ema"]
    for words_ in (
        ["chain", "init", str(tmp_path / "chain"), model, *chain],
        ["chain", "add", str(tmp_path / "chain"), "--concept", "cat"],
        ["chain", "verify", str(tmp_path / "chain")],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words_)
        assert not stopped.value.code, words_


@pytest.mark.parametrize("part", ["text_encoder", "vae", "scheduler", "tokenizer"])
def test_a_component_that_is_null_is_named(part: str, tmp_path: Path, words: Path) -> None:
    folder = shutil.copytree(saved.folder(), tmp_path / "model")
    with_entry(folder, part, [None, None])
    with pytest.raises(ModelError, match=f"has no {part}"):
        load(folder)


SINGLES: dict[str, tuple[str, dict[str, str], str]] = {
    "flux": ("double_blocks.0.img_attn.norm.key_norm.scale", {}, "Flux.1, which is not supported"),
    "sd3": (
        "model.diffusion_model.joint_blocks.0.x_block.attn.proj.bias",
        {},
        "Stable Diffusion 3, which is not",
    ),
    "lora": ("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", {}, "is a LoRA"),
    "peft": ("unet.mid_block.attentions.0.proj_in.lora_A.weight", {}, "is a LoRA"),
    "edit": ("unet.conv_in.weight", {"unlearnkit": "{}"}, "is an edit of unlearnkit"),
    "other": ("encoder.layer.0.weight", {}, "is no checkpoint of Stable Diffusion"),
}


@pytest.mark.parametrize("kind", SINGLES)
def test_a_single_file_of_another_kind_is_told_what_it_is(kind: str, tmp_path: Path) -> None:
    name, facts, message = SINGLES[kind]
    save_file({name: torch.zeros(2)}, tmp_path / "file.safetensors", facts)
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "file.safetensors")


def test_every_familys_own_classes_are_allowed(words: Path, tmp_path: Path) -> None:
    for title in kinds.KINDS:
        pipe = kinds.pipeline(title, words)
        assert type(pipe).__name__ in REQUIRED
        for part, value in dict(pipe.config).items():
            if isinstance(value, tuple | list) and value[0] == "transformers" and value[1] is not None:
                assert value[1] in ALLOWED[part.rstrip("_0123456789")]["transformers"]


@pytest.mark.parametrize("harm", ["unreadable folder", "unreadable file"])
@pytest.mark.skipif(os.getuid() != 0, reason="drops root's rights")
def test_a_model_that_may_not_be_read_is_said_so(harm: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = shutil.copytree(saved.folder(), Path(place) / "model")
        (
            folder if harm == "unreadable folder" else folder / "unet/diffusion_pytorch_model.safetensors"
        ).chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(ModelError, match="no permission"):
                load(folder)
        finally:
            os.seteuid(0)
