"""Settings in a model folder that name code, other files or enormous sizes are refused before anything is built."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import saved
from unlearnkit.errors import ModelError
from unlearnkit.families.single import SETTINGS, V1
from unlearnkit.model.load import load

ROOT = Path(__file__).parents[1]
Change = Callable[[Path], object]
TEXT, UNET, VAE, WORDS, TIMES = (
    *("text_encoder/config.json", "unet/config.json", "vae/config.json"),
    *("tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json"),
)


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """So that a size that is taken at its word fails here, and not the machine."""
    if not (facts := Path("/proc/self/statm")).exists():
        pytest.skip("needs Linux: elsewhere the memory in use is not known")
    used = int(facts.read_text().split()[0]) * resource.getpagesize()
    found = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, found[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved.folder(), tmp_path / "model"))


def changed(file: str, **values: Any) -> Change:
    """Set entries of a JSON file in the model's folder."""

    def change(folder: Path) -> None:
        found = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        (folder / file).write_text(json.dumps(found | values))

    return change


CODE, SIZE = "asks for code of its own .*, which is never run", "at most .* make sense"
ALIKE = "they do not belong together"
HARMS: dict[str, tuple[Change, str]] = {
    "code: the unet's auto_map": (changed(UNET, auto_map={"AutoModel": "helper.Thing"}), CODE),
    "code: a list": (changed(WORDS, auto_map=["helper.Thing", None]), "asks for code"),
    "code: deep inside": (changed(TEXT, text_config={"auto_map": {"AutoModel": "helper.Thing"}}), CODE),
    "code: a kernel from the hub": (changed(TEXT, attn_implementation="somebody/kernel"), CODE),
    "code: one for a part": (changed(TEXT, _attn_implementation={"": "somebody/kernel"}), CODE),
    "files: other weights": (changed(TEXT, transformers_weights="../../x.safetensors"), CODE),
    "files: shards elsewhere": (
        changed(
            "unet/diffusion_pytorch_model.safetensors.index.json", weight_map={"a": "../../x.safetensors"}
        ),
        "names '../../x.safetensors', which is no file of weights in the same folder",
    ),
    "files: shards of numbers": (
        changed("unet/diffusion_pytorch_model.safetensors.index.json", weight_map=[1]),
        "'weight_map' is .1., not a table",
    ),
    "files: an adapter's base": (
        changed("text_encoder/adapter_config.json", base_model_name_or_path="/elsewhere"),
        "has an adapter .text_encoder/adapter_config.json.: merge it",
    ),
    "quantised": (changed(UNET, quantization_config={"quant_method": "bitsandbytes"}), "quantised weights"),
    "layers of text": (changed(TEXT, num_hidden_layers=10**6), SIZE),
    "layers of a block": (changed(UNET, layers_per_block=10**6), SIZE),
    "blocks": (changed(UNET, block_out_channels=[8] * 10**5), "100,000 entries .*at most 1,024"),
    "channels": (changed(UNET, block_out_channels=[8, 10**9]), SIZE),
    "channels in bounds": (changed(UNET, block_out_channels=[2**15, 2**15]), ALIKE),
    "channels of the vae": (changed(VAE, block_out_channels=[2**15, 2**15]), ALIKE),
    "a start token that is no token": (changed(WORDS, bos_token=" "), ALIKE),
    "words": (changed(TEXT, vocab_size=10**8), ALIKE),
    "places": (changed(TEXT, max_position_embeddings=10**8), ALIKE),
    "pictures": (changed(UNET, sample_size=10**9), SIZE),
    "pictures of text": (
        changed(UNET, sample_size="x"),
        "'x' for 'sample_size': a whole number belongs there",
    ),
    "pictures of nothing": (
        changed(UNET, sample_size=None),
        "None for 'sample_size': a whole number belongs",
    ),
    "a shift of text": (changed(UNET, freq_shift="x"), "'x' for 'freq_shift': a number belongs there"),
    "times": (changed(TIMES, num_train_timesteps=10**9), SIZE),
    "betas": (changed(TIMES, trained_betas=[0.1] * 10**6), SIZE),
    "no layer of text": (changed(TEXT, num_hidden_layers=0), "a network has one layer or more"),
    "layers below zero": (changed(TEXT, num_hidden_layers=-1), "a network has one layer or more"),
    "a beta that is no number": (changed(TIMES, beta_start=float("nan")), "a finite number belongs there"),
    "latents without end": (changed(VAE, scaling_factor=float("inf")), "a finite number belongs there"),
    "latents of nothing": (changed(VAE, scaling_factor=0), "latents are divided by it"),
    "beta of text": (changed(TIMES, beta_start="x"), "'x' for 'beta_start': a number belongs there"),
    **{
        f"tokens: {length!r}": (changed(WORDS, model_max_length=length), "tokenizer gives .* tokens")
        for length in (-1, 2, 10**30, "12", 12.5, None)
    },
}


DAMAGED: dict[str, Change] = {
    "padding": changed(UNET, downsample_padding=2),
    "padding below zero": changed(UNET, downsample_padding=-1),
    "no padding": changed(UNET, downsample_padding=None),
}


@pytest.mark.parametrize("harm", DAMAGED)
def test_a_model_that_opens_and_does_not_run_is_one_line(harm: str, folder: Path) -> None:
    DAMAGED[harm](folder)
    with pytest.raises(ModelError, match=r"does not run .* may not fit its weights") as refused:
        load(folder).sample(["cat"], [0], steps=1)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("harm", HARMS)
def test_a_setting_that_names_code_or_makes_no_sense_is_one_line(harm: str, folder: Path) -> None:
    change, says = HARMS[harm]
    change(folder)
    with pytest.raises(ModelError, match=says) as refused:
        load(folder, device="cpu")
    assert "\n" not in str(refused.value)


def hostile(settings: Path, marker: Path) -> None:
    """The folder of a model whose scheduler is code that leaves a mark where it is imported."""
    shutil.copytree(saved.folder(), settings)
    changed("model_index.json", scheduler=["helper", "Thing"])(settings)
    (marker.parent / "helper.py").write_text(f"open({str(marker)!r}, 'w')\nclass Thing: pass\n")


def test_a_single_files_settings_are_never_those_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile(tmp_path / SETTINGS["v1"], tmp_path / "ran")
    save_file({V1: torch.zeros(4)}, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="needs settings from the hub"):
        load("model.safetensors", device="cpu")
    assert not (tmp_path / "ran").exists()


def test_a_single_files_settings_in_the_cache_are_checked_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "hub" / f"models--{SETTINGS['v1'].replace('/', '--')}"
    hostile(place / "snapshots" / "0" / "x", tmp_path / "ran")
    shutil.move(place / "snapshots" / "0" / "x", place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    save_file({V1: torch.zeros(4)}, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match="names 'Thing' of 'helper' as its 'scheduler'"):
        load("model.safetensors", device="cpu")
    assert not (tmp_path / "ran").exists()


def test_modules_in_the_working_folder_stand_in_for_nobodys(folder: Path) -> None:
    ran = folder.parent / "ran"
    for name in ("torchvision", "xformers", "kernels", "flash_attn", "bitsandbytes"):  # that loaders look for
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\n")
    words = ["erase", ".", "--concept", "cat", "--method", "uce", "--dry-run"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "unlearnkit", *words], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not ran.exists()
