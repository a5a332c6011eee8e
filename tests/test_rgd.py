"""RGD's prompts, its capped ascent, and the baselines that climb or relabel, against plain recomputation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unlearnkit import seeds
from unlearnkit.data import pictures
from unlearnkit.data.grammar import GRAMMARS, forms, pairs, read
from unlearnkit.data.image_sets import noise_ratio
from unlearnkit.data.wording import format_prompt
from unlearnkit.errors import InputError
from unlearnkit.methods import RGD, SalUn, edit_for, plan
from unlearnkit.model.model import Model
from unlearnkit.parts.ascent import ascent
from unlearnkit.schema import Concept, Request
from unlearnkit.settings import build
from unlearnkit.training.job import Job, Run
from unlearnkit.training.net import Net

CAT = Request((Concept("cat"),), (Concept("dog"),))
KNOWN = {
    "object": ["apple", "dog", "owl", "tree", "clock"],
    "style": ["neon", "pop art", "anime", "sketch", "cubism"],
}


def drawn(name: str, kind: str = "object", *, count: int = 40, **changes: Any) -> list[tuple[str, str]]:
    others = KNOWN[kind][:4]
    return pairs(read(name), kind, ["cat", "kitten"], others, KNOWN, count=count, seed=1, **changes)


# the grammar


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("kind", ["object", "style"])
def test_pairs_differ_by_the_concept_alone(name: str, kind: str) -> None:
    found = drawn(name, kind, share=0.5)
    assert len({erase for erase, _ in found}) >= 30
    for erase, keep in found:
        assert re.search(r"\b(cat|kitten)\b", erase)
        assert not re.search(r"\b(cat|kitten)\b", keep)
        assert not re.search(r"[\[\]{}]|  |\ba [aeiou]|\ban [^aeiou]", erase + keep)
        same = set(erase.split()) & set(keep.split())
        assert len(same) >= min(len(erase.split()), len(keep.split())) - 6


def test_what_can_go_goes_and_else_another_word_takes_its_place() -> None:
    assert drawn("people", count=3, share=0.0)[0][1].startswith("A ")
    assert all(
        re.sub(r"(cat|kitten) ", "", erase) == re.sub(r"\bAn? ", "A ", keep) or erase.startswith("A")
        for erase, keep in drawn("people", share=0.0)
    )
    assert all(re.search(r"apple|dog|owl|tree", keep) for _, keep in drawn("plain", share=0.0))
    assert all(re.search(r"apple|dog|owl|tree", keep) for _, keep in drawn("people", share=1.0))


@pytest.mark.parametrize("name", GRAMMARS)
def test_the_pools_share_no_sentence(name: str) -> None:
    train, test = ({erase for erase, _ in drawn(name, count=200, pool=pool)} for pool in ("train", "test"))
    assert len(train) > (100 if name == "plain" else 190)
    assert not train & test
    words = read(name).words
    for dimension in words["train"]:
        assert not set(words["train"][dimension]) & set(words["test"][dimension])


def test_templates_and_other_words_have_their_turns(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text('[templates]\nobject = ["a {concept}", "{style} {concept}"]')
    found = pairs(
        read(str(tmp_path / "two.toml")), "object", ["cat"], ["dog", "owl"], KNOWN, count=20, seed=0
    )
    erased = [erase for erase, _ in found]
    assert erased[::2] == ["a cat"] * 10  # one sentence against five, and yet half of them
    assert sorted(erased[1::2]) == sorted(2 * [f"{style} cat" for style in KNOWN["style"]])
    assert sum("owl" in keep for _, keep in found) == 10


def test_a_small_grammar_repeats_and_seeds_matter() -> None:
    assert len(drawn("plain", count=500)) == 500
    assert drawn("people") == drawn("people")
    other = pairs(read("people"), "object", ["cat"], ["dog"], KNOWN, count=40, seed=2)
    assert other != pairs(read("people"), "object", ["cat"], ["dog"], KNOWN, count=40, seed=1)


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("kind", ["object", "style"])
def test_forms_are_sentences_with_a_place_for_the_concept(name: str, kind: str) -> None:
    found = forms(read(name), kind, KNOWN, count=30, seed=3)
    assert 25 <= len(found) == len(set(found)) <= 30
    assert all(form.count("{}") == 1 and not re.search(r"[\[\]]|  |{c", form) for form in found)
    assert found != forms(read(name), kind, KNOWN, count=30, seed=4)
    every = {erase.replace("kitten", "cat") for erase, _ in drawn(name, kind, count=20_000)}
    assert {format_prompt(form, "cat") for form in found} <= every


def test_a_grammar_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[templates]\nobject = ["{size} {concept}"]\n[train]\nsize = ["big"]\n[test]\nsize = ["wee"]'
    )
    mine = read(str(tmp_path / "mine.toml"))
    assert pairs(mine, "object", ["cat"], ["dog"], KNOWN, count=2, seed=0) == [("big cat", "big dog")] * 2
    assert pairs(mine, "object", ["cat"], ["dog"], KNOWN, count=1, seed=0, pool="test") == [
        ("wee cat", "wee dog")
    ]
    with pytest.raises(InputError, match="no templates for a concept of kind 'style'"):
        pairs(mine, "style", ["cat"], ["dog"], KNOWN, count=2, seed=0)
    with pytest.raises(InputError, match="no other word can replace the concept"):
        pairs(mine, "object", ["cat"], [], KNOWN, count=2, seed=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[templates", "is not TOML"),
        ("[template]\nobject = ['{concept}']", "did you mean 'templates'"),
        ("[templates]\nobject = 'a {concept}'", "takes a list of texts"),
        ("[templates]\nthing = ['{concept}']", "object or style, and no other kinds"),
        ("[templates]\nobject = ['a cat']", "takes one {concept}"),
        ("[templates]\nobject = ['[a] {concept}']", "brackets only around it"),
        ("[templates]\nobject = ['{concept} {where}']\n[train]\nwhere = ['here']", "no words for {where}"),
        (
            "[templates]\nobject = ['{concept}']\n[train]\nx = ['a']\n[test]\nx = ['a']",
            "'a' in both pools of x",
        ),
        ("x = " + "[" * 1000 + "]" * 1000, "is not TOML"),
        (f"[templates]\nobject = ['{{concept}}{'[' * 100_000}']", "at most 1000 characters"),
        (f"[templates]\nobject = [{'1,' * 10_000}]", "takes a list of texts"),
        ("\0", "is not TOML"),
    ],
    ids=lambda value: value[-30:],
)
def test_a_wrong_grammar_is_refused_in_a_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(InputError, match=re.escape(says)) as told:
        read(str(tmp_path / "wrong.toml"))
    assert "\n" not in str(told.value)


def test_a_grammar_of_more_sentences_than_can_be_counted_is_refused(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(1000)]
    slots = "".join(f"{{d{i}}}" for i in range(8))
    pools = "\n".join(
        "\n".join([f"[{pool}]", *(f"d{i} = {[pool + word for word in words]}" for i in range(8))])
        for pool in ("train", "test")
    )
    (tmp_path / "vast.toml").write_text(f"[templates]\nobject = ['{{concept}} {slots}']\n{pools}")
    with pytest.raises(InputError, match="over 10,000,000 combinations"):
        pairs(read(str(tmp_path / "vast.toml")), "object", ["cat"], ["dog"], KNOWN, count=2, seed=0)


def test_an_unknown_grammar_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match=r"neither a file nor known \(did you mean 'plain'\?\)"):
        edit_for(model, CAT, method="rgd", settings={"grammar": "plane"})


def test_sentences_of_a_request(model: Model) -> None:
    request = Request((Concept("cat", phrases=("kitten",)), Concept("neon", kind="style")))
    values = build(RGD, {"pictures": 6, "grammar": "plain", "others": 1.0})
    found = values.sentences(model, request, seed=0)
    assert len(found) == 12
    assert all("cat" in erase or "kitten" in erase for erase, _ in found[:6])
    assert all("neon" in erase for erase, _ in found[6:])
    erased = ("cat", "kitten", "neon")
    assert not any(word in keep for _, keep in found for word in erased)
    assert not any(word in erase for erase, _ in found[6:] for word in erased[:2])
    bare = build(RGD, {"pictures": 2, "diverse": False}).sentences(model, CAT, seed=0)
    assert bare == [("cat", "dog"), ("cat", "dog")]
    two = Request((Concept("cat"),), (Concept("dog"), Concept("bear")))
    bare = build(RGD, {"pictures": 3, "diverse": False}).sentences(model, two, seed=0)
    assert [keep for _, keep in bare] == ["dog", "bear", "dog"]
    instead = Request((Concept("cat", instead="bear"),))
    assert all("bear" in keep for _, keep in values.sentences(model, instead, seed=0))
    assert plan(model, request, method="rgd", settings={"pictures": 6}).sampled_images == 24


def test_a_named_word_is_the_only_one_in_a_concepts_place(model: Model) -> None:
    """The grammar has words of its own for a concept's place, which nobody named."""
    request = Request((Concept("van gogh", "style", instead="monet"),))
    found = build(RGD, {"pictures": 40, "others": 1.0}).sentences(model, request, seed=0)
    assert all("monet" in retain for _, retain in found)


def test_without_diversity_a_phrase_is_erased_too(model: Model) -> None:
    request = Request((Concept("cat", phrases=("kitten",)),), (Concept("dog"),))
    found = build(RGD, {"pictures": 4, "diverse": False}).sentences(model, request, seed=0)
    assert [erase for erase, _ in found] == ["cat", "kitten", "cat", "kitten"]


def test_salun_labels_a_concept_by_words_of_its_kind(model: Model) -> None:
    request = Request((Concept("cat"), Concept("neon", "style")), (Concept("dog"),))
    values = build(SalUn, {"pictures": 1, "retain_pictures": 1})
    labels = values.data(Run(model, request, Net(model))).labels
    for (bare, *_), word in zip(labels, ("dog", "van gogh"), strict=True):
        torch.testing.assert_close(bare, model.encode([word]))


def test_nothing_to_keep_is_refused(model: Model) -> None:
    request = Request((Concept("cat"),), (Concept("neon", kind="style"),))
    with pytest.raises(InputError, match="there is no word of the kind 'object' to keep"):
        edit_for(model, request, method="rgd", settings={"pictures": 2})
    for method in ("graddiff", "finetune", "salun"):
        with pytest.raises(InputError, match="there is nothing to keep: give it with --keep"):
            edit_for(model, Request((Concept("cat"),)), method=method, settings={"neighbours": 0})
        with pytest.raises(InputError, match="'retain_pictures' got 0: it takes a whole number, at least 1"):
            edit_for(model, CAT, method=method, settings={"retain_pictures": 0})


# the ascent


def test_ascent_by_hand() -> None:
    squares = torch.tensor([0.5, 2.0, 3.5, 0.0]).view(2, 1, 1, 2)
    assert ascent(squares, 10.0, "batch").item() == -1.5
    assert ascent(squares, 1.0, "batch").item() == -1.0
    assert ascent(squares, 1.0, "element").item() == -(0.5 + 1 + 1 + 0) / 4
    ratio = torch.tensor([4.0, 0.25]).view(2, 1, 1, 1)  # errors of the picture: 2, 8 and 0.875, 0
    assert ascent(squares, 1.0, "picture", ratio).item() == -(0.25 + 0.25 + 3.5 + 0) / 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["batch", "element", "picture"]), st.floats(0.01, 3))
def test_nothing_above_the_cap_has_a_gradient(seed: int, on: Any, cap: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    errors = torch.randn((2, 1, 2, 2), generator=draws).requires_grad_()
    ratio = torch.tensor([3.0, 0.2]).view(2, 1, 1, 1)
    squares = errors.square()
    (gradient,) = torch.autograd.grad(ascent(squares, cap, on, ratio), errors)
    seen = {"batch": squares.mean(), "element": squares, "picture": ratio * squares}[on]
    assert torch.equal(gradient == 0, (seen > cap).expand_as(gradient))
    assert not (gradient * errors > 0).any()  # stepping against it only makes errors larger


def test_noise_ratio_is_that_of_the_schedule(model: Model) -> None:
    t = torch.tensor([0, 500, 999])
    kept = model.pipe.scheduler.alphas_cumprod[t]
    torch.testing.assert_close(noise_ratio(model, t).flatten(), (1 - kept) / kept, rtol=1e-4, atol=1e-6)


# first losses, recomputed with plain diffusers


class Plain:
    """A batch of a method's pictures, noised by hand."""

    def __init__(self, model: Model, prompts: list[str], draws: torch.Generator, count: int = 2) -> None:
        self.model, latents = model, pictures.draw(model, prompts)
        self.which = torch.randint(len(prompts), (count,), generator=draws)
        self.t = torch.randint(1000, (count,), generator=draws)
        self.noise = torch.randn((count, 4, 8, 8), generator=draws)
        self.prompts = [prompts[place] for place in self.which]
        self.x = model.pipe.scheduler.add_noise(latents[self.which], self.noise, self.t)

    def told(self, prompts: list[str] | None = None) -> Tensor:
        states = torch.cat(
            [self.model.pipe.encode_prompt(one, "cpu", 1, False)[0] for one in prompts or self.prompts]
        )
        with torch.no_grad():
            return self.model.pipe.unet(self.x, self.t, encoder_hidden_states=states).sample

    def error(self) -> float:
        return (self.told() - self.noise).square().mean().item()


def first(
    model: Model, folder: Path, method: str, request: Request = CAT, **changes: Any
) -> dict[str, float]:
    changes = {"steps": 1, "batch": 2, **changes}
    edit_for(model, request, method=method, settings=changes, seed=4, job=Job(folder=folder))
    return last(folder)


def last(folder: Path) -> dict[str, float]:
    line: dict[str, float] = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return line


WORDS = ["{}", "a photo of a {}", "{} in a picture"]  # bare, and the toy's templates
CATS, DOGS = ([word.replace("{}", name) for word in WORDS] for name in ("cat", "dog"))


def test_first_losses_of_the_baselines(model: Model, tmp_path: Path) -> None:
    counts = {"pictures": 3, "retain_pictures": 3, "cap": 100.0}
    draws = seeds.stream(4, "graddiff", 0)
    bad, good = Plain(model, CATS, draws), Plain(model, DOGS, draws)
    found = first(model, tmp_path / "graddiff", "graddiff", retain_weight=2.0, **counts)
    assert found["erase"] == pytest.approx(-bad.error(), rel=1e-4)
    assert found["retain"] == pytest.approx(2 * good.error(), rel=1e-4)
    with pytest.raises(InputError, match="changes no weight"):  # a loss at its cap has no gradient
        first(model, tmp_path / "ga", "ga", pictures=3, cap=0.1)
    assert last(tmp_path / "ga")["erase"] == pytest.approx(-0.1)
    found = first(model, tmp_path / "finetune", "finetune", retain_pictures=3)
    assert found["retain"] == pytest.approx(
        Plain(model, DOGS, seeds.stream(4, "finetune", 0)).error(), rel=1e-4
    )


def test_above_the_gate_only_the_keeping_loss_moves_the_weights(model: Model, tmp_path: Path) -> None:
    """So the step is that of λ g_r alone, whatever the erasing data."""
    changes = {"pictures": 3, "diverse": False, "steps": 1, "batch": 2, "lr": 1e-3, "trains": "xattn-kv"}
    gated = edit_for(model, CAT, method="rgd", settings={**changes, "cap": 0.01}, seed=4)
    added = edit_for(model, CAT, method="rgd", settings={**changes, "cap": 0.01, "combine": "sum"}, seed=4)
    free = edit_for(model, CAT, method="rgd", settings={**changes, "cap": 100.0}, seed=4)
    for name, weight in gated.weights.items():
        torch.testing.assert_close(weight, added.weights[name], rtol=0, atol=5e-5)
    assert free.hash() != gated.hash()


def once_each(model: Model, prompts: list[str], draws: torch.Generator) -> float:
    """The mean error over pictures that are noised once each, two at a time."""
    latents, errors = pictures.draw(model, prompts), []
    for places in torch.split(torch.arange(len(prompts)), 2):
        t = torch.randint(1000, (len(places),), generator=draws)
        noise = torch.randn((len(places), 4, 8, 8), generator=draws)
        x = model.add_noise(latents[places], noise, t)
        with torch.no_grad():
            told = model.eps(x, t, model.encode([prompts[place] for place in places]))
        errors += (told - noise).square().mean(dim=(1, 2, 3)).tolist()
    return sum(errors) / len(prompts)


def test_rgd_keeps_over_the_whole_set_if_told(model: Model, tmp_path: Path) -> None:
    changes = {"pictures": 5, "diverse": False, "retain_weight": 1.0}
    draws = seeds.stream(4, "rgd", 0)
    bad = Plain(model, ["cat"] * 5, draws)
    error = once_each(model, ["dog"] * 5, draws)
    found = first(model, tmp_path / "whole", "rgd", retain_full_batch=True, cap=100.0, **changes)
    assert found["retain"] == pytest.approx(error, rel=1e-4)
    assert found["erase"] == pytest.approx(-bad.error(), rel=1e-4)


def test_rgd_can_count_the_concepts_error_in_what_it_was(model: Model, tmp_path: Path) -> None:
    changes = {"diverse": False, "pictures": 3, "relative_erase": True}
    was = once_each(model, ["cat"] * 3, seeds.stream(4, "rgd first"))
    bad = Plain(model, ["cat"] * 3, seeds.stream(4, "rgd", 0))
    found = first(model, tmp_path / "free", "rgd", cap=100.0, **changes)
    assert found["erase"] == pytest.approx(-bad.error() / was, rel=1e-4)
    found = first(model, tmp_path / "gated", "rgd", cap=0.1, **changes)
    assert found["erase"] == pytest.approx(-0.1)  # a tenth of what it was
    asked = {"batch": 2, "steps": 4, **changes}
    assert plan(model, CAT, method="rgd", settings=asked).passes == (
        3 / 4,
        4,
    )  # three pictures once, in four steps


@pytest.mark.parametrize("whole", [False, True])
def test_rgd_can_keep_what_the_base_model_says(whole: bool, model: Model, tmp_path: Path) -> None:
    changes = {
        "diverse": False,
        "pictures": 3,
        "retain_target": "teacher",
        "retain_full_batch": whole,
        "steps": 2,
    }
    first(model, tmp_path / "run", "rgd", **changes)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["retain"] == pytest.approx(0.0, abs=1e-9)
    assert lines[1]["retain"] > 1e-9


def test_the_plan_counts_what_the_whole_retain_set_shows_again(model: Model) -> None:
    settings = {
        "pictures": 4,
        "batch": 2,
        "retain_full_batch": True,
        "retain_target": "teacher",
        "prompt_dropout": 0.2,
    }
    found = plan(model, CAT, method="rgd", settings=settings)
    # 4 kept pictures and one again, a fifth of 5, each asked twice without gradient
    assert (found.passes, found.sampled_images) == ((10.0, 7.0), 8)


# SalUn


def test_first_losses_of_salun(model: Model, tmp_path: Path) -> None:
    counts = {"pictures": 3, "retain_pictures": 3, "mask_warmup": 1, "retain_weight": 0.5}
    for teacher in ("student", "frozen"):
        found = first(model, tmp_path / teacher, "salun", teacher=teacher, **counts)
        draws = seeds.stream(4, "salun", 0 + 1)
        bad = Plain(model, CATS, draws)
        torch.randint(2**31, (2,), generator=draws)
        wanted = bad.told([prompt.replace("cat", "dog") for prompt in bad.prompts])
        assert found["erase"] == pytest.approx((bad.told() - wanted).square().mean().item(), rel=1e-4)
        assert found["retain"] == pytest.approx(0.5 * Plain(model, DOGS, draws).error(), rel=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    look = Plain(model, CATS, seeds.stream(4, "salun saliency", 0))
    guided = 8.5 * look.told() - 7.5 * look.told(["", ""])  # (1 + w) ε(c) - w ε() with w = 7.5
    assert lines[0]["erase"] == pytest.approx((guided - look.noise).square().mean().item(), rel=1e-4)


def test_salun_moves_half_of_all_weights_at_most(model: Model) -> None:
    changes = {"pictures": 3, "retain_pictures": 3, "mask_warmup": 1, "steps": 3, "batch": 2, "lr": 1e-3}
    edit = edit_for(model, CAT, method="salun", settings=changes)
    before = model.weights("all")
    moved = sum(int((new != before[name]).sum()) for name, new in edit.weights.items())
    total = sum(weight.numel() for weight in before.values())
    assert 0.4 * total < moved <= total // 2
