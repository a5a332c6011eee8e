"""What is edited is what draws: names that are read whole, weights that are used, and predictions that move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig

import kinds
import saved
import tiny
from tiny import HINTS
from unlearnkit import chain
from unlearnkit.chain.project import open_chain
from unlearnkit.cli import main
from unlearnkit.errors import EditError, InputError, ModelError
from unlearnkit.methods import check_moved, edit_for, plan
from unlearnkit.model.edit import Edit
from unlearnkit.model.model import Model
from unlearnkit.runs.requests import request_for
from unlearnkit.runs.run import erase
from unlearnkit.schema import Concept, Request

LONG = "cat " * tiny.LENGTH
WORDS = [title for title in kinds.KINDS if not title.startswith("class-conditional")]
QUICK: dict[str, Any] = {"steps": 1, "start_steps": 2}


# names


@pytest.mark.parametrize(
    "request_", [(LONG,), ("cat", LONG), ("cat", None, LONG), ("cat", None, None, LONG)], ids=len
)
def test_a_name_longer_than_the_text_encoder_reads_is_refused(model: Model, request_: tuple[Any, ...]):
    name, phrase, instead, keep = (*request_, None, None, None)[:4]
    request = Request(
        (Concept(name, phrases=(phrase,) if phrase else (), instead=instead),),
        (Concept(keep),) if keep else (),
    )
    for go in (plan, edit_for):
        with pytest.raises(InputError, match="is 12 tokens long, and the text encoder of tiny reads 10"):
            go(model, request, method="uce")


@pytest.mark.parametrize("title", WORDS)
def test_every_family_knows_how_many_tokens_it_reads(title: str, words: Path):
    model = Model(kinds.pipeline(title, words), hints=HINTS)
    short, room = model.family.room(model.pipe, "van gogh", None)
    assert short == 2
    model.reads("cat " * room)
    with pytest.raises(
        InputError, match=f"is {room + 1} tokens long, and the text encoder of .* reads {room}:"
    ):
        model.reads("cat " * (room + 1))


def test_the_command_line_says_that_a_name_is_too_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved.folder()
    capsys.readouterr()
    for more in ([], ["--dry-run"]):
        words = [
            "erase",
            str(saved.folder()),
            "--concept",
            LONG,
            "--method",
            "uce",
            "--out",
            str(tmp_path / "out"),
        ]
        with pytest.raises(SystemExit) as stopped:
            main([*words, *more])
        said = capsys.readouterr().err.strip()
        assert (stopped.value.code, said.count("\n")) == (2, 0), said
        assert "12 tokens long" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("title", sorted(set(kinds.KINDS) - set(WORDS)))
def test_two_names_of_one_class_are_one_concept(title: str, words: Path):
    model = Model(kinds.pipeline(title, words), source="tiny")
    for request in (
        request_for(["cat", "kitten"]),
        request_for("cat", keep=["kitten"]),
        request_for("cat", instead="kitten"),
    ):
        with pytest.raises(InputError, match="'cat' and 'kitten' are one and the same to tiny"):
            plan(model, request, method="esd")
    with pytest.raises(InputError, match="class 'catt' is unknown"):
        plan(model, request_for("cat", keep=["catt"]), method="esd")
    assert plan(model, Request((Concept("cat", phrases=("kitten",)),)), method="esd").steps


def test_names_that_the_tokenizer_cannot_tell_apart_are_one_concept(words: Path):
    model = Model(kinds.pipeline("PixArt-Sigma", words), source="tiny")  # its toy words know no Chinese
    with pytest.raises(InputError, match="are one and the same to tiny"):
        edit_for(model, request_for(["猫", "犬"]), method="uce")


@pytest.mark.parametrize("title", ["Stable Diffusion 1.x/2.x", "Stable Diffusion XL", "Flux.1"])
def test_every_vector_of_a_learned_word_counts_as_a_token(title: str, words: Path):
    pipe = kinds.pipeline(title, words)
    flux = title == "Flux.1"
    tokenizer, encoder = (
        (pipe.tokenizer_2, pipe.text_encoder_2) if flux else (pipe.tokenizer, pipe.text_encoder)
    )
    tokenizer.add_tokens(["<moi>", "<moi>_1", "<moi>_2"])
    for network in {encoder, getattr(pipe, "text_encoder_2", encoder)}:
        network.resize_token_embeddings(len(tokenizer))
    model = Model(pipe, hints=HINTS)
    plain, learned = model.last_token("a photo of a cat"), model.last_token("a photo of a <moi>")
    assert learned == plain + 2
    assert model.family.room(pipe, "<moi>", None)[0] == 3
    if title == WORDS[0]:
        states = model.encode(["<moi>", "<moi> cat"])
        assert torch.equal(states[0, model.last_token("<moi>")], states[1, model.last_token("<moi>")])
        assert not torch.equal(states[0, 4], states[1, 4]), "and behind it is something else"
        assert edit_for(model, request_for("<moi>"), method="uce").weights


# pipelines


@pytest.mark.parametrize("title", WORDS)
def test_fused_projections_are_refused(title: str, words: Path):
    pipe = kinds.pipeline(title, words)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    denoiser.fuse_qkv_projections()
    with pytest.raises(ModelError, match="call unfuse_qkv_projections"):
        Model(pipe)
    denoiser.unfuse_qkv_projections()
    assert Model(pipe).weights()


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "vae", "unet"])
def test_an_adapter_on_any_network_is_refused(part: str, words: Path):
    pipe = kinds.pipeline("Stable Diffusion XL", words)
    names = ["q_proj"] if part.startswith("text") else ["to_q"]
    getattr(pipe, part).add_adapter(LoraConfig(r=2, target_modules=names))
    with pytest.raises(ModelError, match="carries a LoRA: fuse it"):
        Model(pipe)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"time_cond_proj_dim": 32}, "takes its guidance as a condition .* not supported"),
        ({"class_embed_type": "timestep"}, "takes more than text .class_embed_type"),
        ({"num_class_embeds": 4}, "takes more than text .num_class_embeds = 4"),
        ({"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 16}, "encoder_hid_dim_type"),
        ({"addition_embed_type": "text"}, "addition_embed_type"),
    ],
    ids=str,
)
def test_a_network_with_a_condition_that_is_not_passed_on_is_refused(
    change: dict[str, Any], says: str, words: Path
):
    pipe = tiny.pipeline(words)
    config = {name: value for name, value in pipe.unet.config.items() if not name.startswith("_")}
    pipe.unet = UNet2DConditionModel(**config | change).eval()
    with pytest.raises(ModelError, match=says):
        Model(pipe)


# edits


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("esd", QUICK | {"lr": 0.0}),
        ("uce", {"ridge": 1e12, "free": 0.0}),
        ("ca", {"steps": 1, "pictures": 1, "lr": 1e-30}),
    ],
)
def test_an_edit_of_no_weights_is_refused(
    model: Model, tmp_path: Path, method: str, settings: dict[str, Any]
):
    with pytest.raises(InputError, match="changes no weight: raise lr or steps"):
        edit_for(model, request_for("cat"), method=method, settings=settings)
    with pytest.raises(InputError, match="changes no weight"):
        erase(model, "cat", method=method, out=tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "edit.safetensors").exists()
    assert not (tmp_path / "run" / "run.json").exists()
    chain.init(tmp_path / "chain", model, method=method, settings=settings, pictures=0)
    with pytest.raises(InputError, match="changes no weight"):
        chain.add(tmp_path / "chain", "cat", model=model)
    assert not open_chain(tmp_path / "chain").steps


def test_an_edit_of_weights_that_nothing_uses_is_refused(make: Callable[..., Model]):
    model = make()
    with torch.no_grad():
        for name, weight in model.denoiser.named_parameters():
            if ".attn2.to_out.0." in name:
                weight.zero_()
    with pytest.raises(InputError, match="moves nothing that tiny predicts for 'cat' in float32: raise lr"):
        edit_for(model, request_for("cat"), method="uce")


def test_an_edit_too_small_for_the_dtype_is_refused(make: Callable[..., Model]):
    settings = QUICK | {"lr": 1e-8}
    assert edit_for(make(), request_for("cat"), method="esd", settings=settings).weights
    with pytest.raises(InputError, match="moves nothing that tiny predicts for 'cat' in bfloat16"):
        edit_for(make(dtype=torch.bfloat16), request_for("cat"), method="esd", settings=settings)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("method", ["esd", "uce"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_is_refused(
    make: Callable[..., Model], part: str, method: str, value: float
):
    model = make()
    name, weight = list(getattr(model.pipe, part).named_parameters())[-1]
    with torch.no_grad():
        weight.view(-1)[-1] = value
    with pytest.raises(
        ModelError, match=rf"'tiny' is damaged: {part} holds a value in '{name}' that is not a finite number"
    ):
        edit_for(model, request_for("cat"), method=method, settings=QUICK if method == "esd" else {})


@pytest.mark.parametrize("method", ["esd", "uce"])
def test_a_zeroed_network_is_refused(make: Callable[..., Model], method: str):
    model = make()
    with torch.no_grad():
        for weight in model.denoiser.parameters():
            weight.zero_()
    with pytest.raises(InputError, match=r"changes no weight|moves nothing"):
        edit_for(model, request_for("cat"), method=method, settings=QUICK if method == "esd" else {})


def test_predictions_that_are_not_finite_are_refused_before_and_after(make: Callable[..., Model]):
    model = make()
    last = model.values(["unet.conv_out.weight"])["unet.conv_out.weight"]
    huge = Edit({"unet.conv_out.weight": torch.full(last.shape, 3e38)})
    with pytest.raises(EditError, match="the edit makes tiny predict no finite number for 'cat'"):
        check_moved(model, request_for("cat"), huge)
    with model.wearing(huge), pytest.raises(ModelError, match="tiny predicts no finite number for 'cat'"):
        check_moved(model, request_for("cat"), Edit({"unet.conv_out.bias": torch.zeros(4)}))


def test_looking_whether_an_edit_moves_anything_disturbs_nothing(model: Model):
    torch.manual_seed(5)
    before, printed = torch.get_rng_state(), model.fingerprint()
    edit_for(model, request_for("cat"), method="uce")
    assert torch.equal(torch.get_rng_state(), before)
    assert model.fingerprint() == printed
