"""An edit of any component: text encoders, and guards that change no weight."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import quick
from test_run import command
from torch import Tensor

import kinds
import saved
import tiny
from unlearnkit import Edit, Model, chain, erase, load
from unlearnkit.data.image_sets import DenoiserInput
from unlearnkit.errors import EditError, InputError
from unlearnkit.methods import edit_for, plan
from unlearnkit.model.encoders import encoders, placeholder, random_vectors
from unlearnkit.model.hooks import Hook, ValueGuard, gram_schmidt
from unlearnkit.schema import Concept, Request
from unlearnkit.training.net import Net, mse

PLAIN = {"first": 1, "slope": 0.0, "middle": 0.0, "most": 2.0}  # δ = 2 σ(0) = 1
WORDS = [kind for kind in kinds.KINDS if not kind.startswith("class")]


def guard(**changes: float) -> ValueGuard:
    return ValueGuard(torch.eye(3)[:1], **{**PLAIN, **changes})


def hook(*concepts: list[float]) -> Hook:
    return Hook("values", PLAIN, {"concepts": torch.tensor(concepts)})


def change(model: Model, part: str, by: float = 0.1) -> Edit:
    weights = {name: weight.detach().float() + by for name, weight in model.weights(part).items()}
    fits = {name: model.fingerprint(name) for name in encoders(model.pipe)}
    return Edit(weights, {"base": model.fingerprint(), "fits": fits})


# the guard's formula


def test_a_value_loses_what_it_shares_with_a_concept() -> None:
    """By hand: v = (3, 4, 0), v* = (1, 0, 0), so <v, v*> / |v*|² = 3 and cos = 0.6."""
    v, concept = torch.tensor([[3.0, 4.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert guard().decomposed(v, concept).tolist() == [[0.0, 4.0, 0.0]]
    half = guard(slope=100.0, middle=0.6).decomposed(v, concept)  # at the middle δ is half of most: 1
    torch.testing.assert_close(half, torch.tensor([[0.0, 4.0, 0.0]]))
    shift = 2 / (1 + math.exp(-5 * (0.6 - 0.5)))
    found = guard(slope=5.0, middle=0.5).decomposed(v, 7 * concept)  # the concept's length does not count
    torch.testing.assert_close(found, torch.tensor([[3 - 3 * shift, 4.0, 0.0]]))
    far = guard(slope=100.0, middle=0.93).decomposed(v, concept)
    torch.testing.assert_close(far, v)


def test_two_concepts_are_taken_out_as_their_plane() -> None:
    """By hand: of (2, 3, 5) the plane of (1, 0, 0) and (1, 1, 0) takes all but the third."""
    concepts = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    assert gram_schmidt(concepts).tolist() == [[1.0, 0.0], [-1.0, 1.0]]
    found = guard().decomposed(torch.tensor([2.0, 3.0, 5.0]), concepts)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 5.0]))


def test_three_concepts_become_orthogonal() -> None:
    rows = torch.randn((3, 5), generator=torch.Generator().manual_seed(0))
    u = (gram_schmidt(rows.double()) @ rows.double()).float()
    torch.testing.assert_close(u @ u.T, torch.diag(u.square().sum(1)), atol=1e-5, rtol=0)


def test_more_texts_than_a_value_has_numbers_are_taken_out_as_their_span() -> None:
    """By an independent route: what is left is what no combination of the texts gives, however many they are."""
    draws = torch.Generator().manual_seed(0)
    for number, noise in ((5, 1e-6), (9, 1e-6), (40, 1e-6), (40, 1e-4)):
        rows = torch.randn((number, 4), generator=draws) @ torch.randn((4, 16), generator=draws)
        rows += noise * torch.randn(rows.shape, generator=draws)
        v = torch.randn((3, 16), generator=draws)
        basis = torch.linalg.svd(rows.double())[2][:4]
        rest = v.double() - v.double() @ basis.T @ basis
        torch.testing.assert_close(
            guard().decomposed(v, rows).double(), rest, atol=max(1e-3, 20 * noise), rtol=0
        )


def test_hundreds_of_near_texts_leave_orthogonal_directions() -> None:
    """As texts of a real encoder are: their singular values fall without a gap."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn((200, 32), generator=draws) * 0.7 ** torch.arange(32)
    u = gram_schmidt(rows.double()) @ rows.double()
    u = torch.nn.functional.normalize(u[u.square().sum(1) > 0])
    assert len(u) <= 32
    torch.testing.assert_close(u @ u.T, torch.eye(len(u), dtype=u.dtype), atol=1e-8, rtol=0)


def test_a_guard_leaves_the_start_token_and_ends_with_the_edit(model: Model) -> None:
    edit = edit_for(model, Request((Concept("cat"),)), method="adavd")
    (one,) = edit.hooks
    assert one.settings["first"] == 1
    name = next(iter(model.weights("values"))).removeprefix("unet.").removesuffix(".weight")
    layer, states = model.denoiser.get_submodule(name), model.text(["a cat", "dog"])
    before = layer(states)
    with model.wearing(edit):
        inside = layer(states)
    assert torch.equal(inside[:, 0], before[:, 0])
    assert not torch.equal(inside[0, 2], before[0, 2])
    assert torch.equal(layer(states), before)


def test_a_t5_has_no_start_token(words: Path) -> None:
    model = Model(kinds.pipeline("PixArt-Sigma", words))
    edit = edit_for(model, Request((Concept("cat"),)), method="adavd")
    assert edit.hooks[0].settings["first"] == 0


def test_models_without_cross_attention_refuse_a_guard(words: Path) -> None:
    for kind in ("Flux.1", "class-conditional DiT"):
        model = Model(kinds.pipeline(kind, words))
        name = model.classes[0] if model.classes else "cat"
        with pytest.raises(InputError, match=r"has no part 'values': "):
            edit_for(model, Request((Concept(name),)), method="adavd")


# files


def test_an_edit_with_guards_is_read_as_it_was_written(tmp_path: Path) -> None:
    edit = Edit({"unet.a": torch.ones(2)}, {"method": "x"}, (hook([1.0, 2.0, 3.0]), hook([0.0, 1.0, 0.0])))
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert (again.hash(), again.seal(), again.facts) == (edit.hash(), edit.seal(), edit.facts)
    assert [one.tensors["concepts"].tolist() for one in again.hooks] == [[[1.0, 2.0, 3.0]], [[0.0, 1.0, 0.0]]]
    others = [edit.hooks[:1], edit.hooks[::-1], ()]
    assert len({edit.hash(), *(Edit(edit.weights, {}, hooks).hash() for hooks in others)}) == 4


def test_any_changed_byte_of_an_edit_with_guards_is_found(tmp_path: Path) -> None:
    path = tmp_path / "edit.safetensors"
    Edit({}, {}, (hook([1.0, 2.0, 3.0]),)).save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(EditError):
            Edit.load(path)


@pytest.mark.parametrize(
    ("name", "settings", "tensors", "why"),
    [
        (
            "valeus",
            PLAIN,
            {"concepts": torch.ones(1, 3)},
            r"hook 'valeus' is unknown \(did you mean 'values'\?\)",
        ),
        ("values", {"first": 1}, {"concepts": torch.ones(1, 3)}, "has no 'slope'"),
        ("values", PLAIN | {"slope": "1"}, {"concepts": torch.ones(1, 3)}, "'slope' is '1', not a number"),
        ("values", PLAIN | {"code": "x"}, {"concepts": torch.ones(1, 3)}, r"does not take \['code'\]"),
        ("values", PLAIN, {}, "does not take"),
        ("values", PLAIN, {"concepts": torch.ones(3)}, "it has float32 and 2 dimensions"),
        ("values", PLAIN, {"concepts": torch.ones(1, 3, dtype=torch.float64)}, "it has float32"),
        ("values", PLAIN, {"concepts": torch.full((1, 3), math.nan)}, "not a finite number"),
        ("values", PLAIN | {"slope": math.inf}, {"concepts": torch.ones(1, 3)}, "not a finite number"),
        ("values", PLAIN | {"first": -1}, {"concepts": torch.ones(1, 3)}, "'first' is -1"),
    ],
)
def test_a_hook_that_is_none_is_one_line(
    name: str, settings: dict[str, float], tensors: dict[str, Tensor], why: str
) -> None:
    with pytest.raises(EditError, match=why):
        Hook(name, settings, tensors)


def test_a_guard_for_states_of_another_width_is_refused(model: Model) -> None:
    edit = Edit({}, {}, (hook([1.0, 0.0, 0.0]),))
    with pytest.raises(EditError, match="was made for text states of 3 numbers"), model.wearing(edit):
        pass


# text encoders


def test_text_is_encoded_anew_while_an_encoder_is_another(model: Model) -> None:
    edit, before = change(model, "text-encoder"), model.encode(["cat"])
    with model.wearing(edit):
        inside = model.encode(["cat"])
    assert not torch.equal(inside, before)
    assert torch.equal(model.encode(["cat"]), before)


def test_a_fingerprint_says_what_is_worn(model: Model) -> None:
    plain, guarded = model.fingerprint(), Edit({}, {}, (hook([1.0] * 16),))
    seen = [plain]
    for edit in (change(model, "text-encoder"), change(model, "text-encoder", 0.2), guarded):
        with model.wearing(edit):
            seen.append(model.fingerprint())
            assert model.fingerprint("unet") == plain
    assert len(set(seen)) == 4
    assert model.fingerprint() == plain


def test_an_edit_fits_the_components_that_it_changes(model: Model) -> None:
    text, both = change(model, "text-encoder"), change(model, "text-encoder")
    both.weights.update(change(model, "xattn").weights)
    torch.nn.init.ones_(model.denoiser.conv_out.bias)
    model.check(text)  # another denoiser is no matter to it
    with pytest.raises(EditError, match="the edit was made from"):
        model.check(both)
    torch.nn.init.ones_(model.pipe.text_encoder.get_parameter("encoder.layers.0.mlp.fc1.bias"))
    with pytest.raises(EditError, match="the edit was made from"):
        model.check(text)


def test_only_layers_of_text_encoders_are_trained(words: Path) -> None:
    for kind in WORDS:
        model = Model(kinds.pipeline(kind, words))
        found = model.weights("text-encoder")
        assert {name.partition(".")[0] for name in found} == set(encoders(model.pipe))
        assert not [name for name in found if "norm" in name or "embed" in name]
    with pytest.raises(InputError, match="has no text encoder: it is class-conditional"):
        Model(kinds.pipeline("class-conditional DiT", words)).weights("text-encoder")


@pytest.mark.parametrize("kind", WORDS)
def test_a_tokens_own_embedding_in_place_of_another_token_gives_its_prompt(kind: str, words: Path) -> None:
    """An independent route: "cat dog" is the placeholder and "dog", with cat's embedding for the placeholder."""
    model = Model(kinds.pipeline(kind, words))
    vectors = {}
    for name, encoder in encoders(model.pipe).items():
        tokenizer = getattr(model.pipe, name.replace("text_encoder", "tokenizer"))
        start = len(tokenizer("").input_ids) - 1
        cat = tokenizer("cat").input_ids[start : start + 1]
        vectors[name] = encoder.get_input_embeddings().weight[cat].detach()
    prompt = f"{placeholder(model.pipe, 1)} dog"
    found, wanted = model.conditioning([prompt], vectors), model.encode(["cat dog"])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.equal(model.conditioning([prompt]), model.encode(["cat dog"]))


# AdvUnlearn


def rows(model: Model) -> DenoiserInput:
    draws = torch.Generator().manual_seed(0)
    t = torch.tensor([100, 600])
    return DenoiserInput(torch.randn((2, *model.shape), generator=draws), t, model.encode(["cat", "cat"]))


def test_the_attack_comes_nearer_to_what_the_concept_drew(model: Model) -> None:
    net, given = Net(model), rows(model)
    (target,) = net.teacher([given])
    prompts = [f"{placeholder(model.pipe, 2)} dog"] * 2

    def gap(steps: int) -> float:
        draws = torch.Generator().manual_seed(1)
        found = net.attack(given, prompts, target, tokens=2, steps=steps, lr=1e-2, draws=draws)
        with torch.no_grad():
            return mse(model.eps(given.x, given.t, model.conditioning(prompts, found)), target).item()

    assert gap(40) < 0.9 * gap(0)
    assert gap(1) < gap(0)


def test_one_step_of_the_attack_is_the_sign_of_the_gradient(model: Model) -> None:
    given, prompts = rows(model), [f"{placeholder(model.pipe, 1)} cat"] * 2
    (target,) = (net := Net(model)).teacher([given])
    start = random_vectors(model.pipe, 1, torch.Generator().manual_seed(2))["text_encoder"].requires_grad_()
    eps = model.eps(given.x, given.t, model.conditioning(prompts, {"text_encoder": start}))
    (gradient,) = torch.autograd.grad((eps - target).square().mean(), start)
    draws = torch.Generator().manual_seed(2)
    found = net.attack(given, prompts, target, tokens=1, steps=1, lr=0.5, draws=draws)
    torch.testing.assert_close(found["text_encoder"], start.detach() - 0.5 * gradient.sign())


def test_without_attack_and_retaining_one_step_is_esds_on_the_text_encoder(model: Model) -> None:
    """An independent route: the gradient of ESD's loss to one weight, by differences, has Adam's first step's sign."""
    settings = {"steps": 1, "batch": 2, "pictures": 2, "attack_steps": 0, "retain_weight": 0.0, "lr": 1e-3}
    edit = edit_for(model, Request((Concept("cat"),)), method="advunlearn", settings=settings)
    assert edit.components == ("text_encoder",)
    assert edit.facts["fits"] == {"text_encoder": model.fingerprint("text_encoder")}
    for name, value in edit.weights.items():
        moved = (value - model.values([name])[name].detach()).abs()
        assert (
            moved.max() < 1.01e-3
        )  # Adam's first step is the learning rate in every entry that has a gradient
    assert {name.partition(".")[0] for name in edit.weights} == {"text_encoder"}


# runs and chains


def test_a_run_with_a_guard_has_no_pipeline_and_is_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert command("erase", saved.folder(), "--concept", "cat", "--method", "adavd", "--out", run) == 0
    assert not (run / "pipeline").exists()
    assert command("verify", run) == 0
    assert command("erase", "--resume", "--out", run) == 0
    capsys.readouterr()
    assert command("export", run, "--out", tmp_path / "lora.safetensors") == 2
    said = capsys.readouterr().err
    assert said.startswith("a guard acts at inference, and a file of weights cannot contain it")
    how = ["--prompt", "cat", "--edit", run / "edit.safetensors", "--steps", "2", "--out", tmp_path / "drawn"]
    assert command("generate", saved.folder(), *how) == 0


def test_a_run_of_a_text_encoder_is_verified_and_its_pipeline_is_what_it_says(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {
        "steps": 2,
        "pictures": 2,
        "retain_pictures": 2,
        "attack_steps": 1,
        "attack_start": 0,
        "batch": 2,
    }
    edit = erase(load(saved.folder()), Concept("cat"), method="advunlearn", out=run, **settings)
    assert command("verify", run) == 0
    again = load(run / "pipeline")
    found = again.values(edit.weights)
    assert all(torch.equal(found[name], value) for name, value in edit.weights.items())
    file = run / "pipeline" / "text_encoder" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert command("verify", run) == 2


@pytest.mark.parametrize("regime", ["sequential", "joint", "merged"])
def test_a_chain_takes_text_encoders_and_guards(regime: str, tmp_path: Path) -> None:
    project = tmp_path / "chain"
    chain.init(project, saved.folder(), regime=regime, method="uce", pictures=0)
    quick = {"steps": 2, "pictures": 2, "retain_pictures": 2, "attack_steps": 0, "lr": 1e-3}
    chain.add(project, "cat", method="adavd")
    chain.add(project, "dog", method="advunlearn", settings=quick)
    chain.add(project, "bear")
    assert list(chain.verify(project)) == []
    edit = chain.edit(project)
    joint = regime == "joint"
    assert len(edit.hooks) == (0 if joint else 1)
    assert edit.components == (("unet",) if joint else ("text_encoder", "unet"))
    chain.drop(project, 1)
    chain.undo(project)
    assert list(chain.verify(project, redraw=1.0)) == []


def test_project_holds_pixarts_biases_and_is_refused_where_nothing_it_constrains_is_trained(
    words: Path,
) -> None:
    request = Request((Concept("cat"),), (Concept("dog"),))
    how: dict[str, Any] = {"rule": ("project",), "trains": "xattn-kv"}
    model = Model(kinds.pipeline("PixArt-Sigma", words), hints=tiny.HINTS)
    layer = next(iter(model.weights("keys"))).removesuffix(".weight").partition(".")[2]
    before = model.denoiser.get_submodule(layer)(model.text(["dog"]))
    for trains in ("xattn-kv", "all"):
        edit = edit_for(model, request, method="ca", settings=quick("ca", lr=1e-2) | how | {"trains": trains})
        with model.wearing(edit):
            after = model.denoiser.get_submodule(layer)(model.text(["dog"]))
        place = model.last_token("dog")
        torch.testing.assert_close(after[0, place], before[0, place], atol=1e-5, rtol=1e-4)
    flux = Model(kinds.pipeline("Flux.1", words), hints=tiny.HINTS)
    with pytest.raises(InputError, match="trains=xattn-kv trains none of them here: choose trains=all"):
        plan(flux, request, method="ca", settings=quick("ca") | how)
