"""Attacks that search for prompts: each against numbers worked out by another route."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_attacks import TINY, victim, worn

from unlearnkit.attacks import Victim, find
from unlearnkit.attacks.mma import MMA, similarity
from unlearnkit.attacks.p4d import P4D, loss
from unlearnkit.attacks.ring_a_bell import RingABell, child, direction
from unlearnkit.attacks.unlearndiffatk import UnlearnDiffAtk
from unlearnkit.attacks.words import fits, words_of
from unlearnkit.errors import InputError
from unlearnkit.model.encoders import placeholder, pooled, random_vectors
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unlearndiffatk_first_step_by_the_pipelines_own_parts(seed: int, model: Model) -> None:
    """With one step, one word and Adam's first step of ±0.01 the arg-max is a word whose gradient is negative."""
    one = Victim(
        model, Concept("cat"), dataclasses.replace(TINY, steps=1, batch=2), applied=worn(model), seed=seed
    )
    found = UnlearnDiffAtk(length=1, prompts=1).search(one)
    words, prompt = words_of(model, ["cat"]), "cat"
    chosen = words.texts.index(found.attempts[0].prompt.removesuffix(" cat"))

    draws, bar, x0 = one.stream("unlearndiffatk", 0), model.pipe.scheduler.alphas_cumprod, one.examples()
    first = torch.multinomial(torch.full((1, len(words)), 1 / len(words)), 1, generator=draws)[0, 0]
    x = x0[torch.randint(len(x0), (2,), generator=draws)]
    t = torch.randint(1000, (2,), generator=draws)
    noise = torch.randn(x.shape, generator=draws)
    share = bar[t].view(-1, 1, 1, 1)
    noisy = share.sqrt() * x + (1 - share).sqrt() * noise
    encoder, tokenizer = model.pipe.text_encoder, model.pipe.tokenizer
    table = encoder.get_input_embeddings().weight
    with one.edited(), torch.enable_grad():
        ids = tokenizer(f"{words.texts[first]} {prompt}", padding="max_length", return_tensors="pt").input_ids
        leaf = table[ids].detach().requires_grad_()
        hook = encoder.get_input_embeddings().register_forward_hook(lambda *_: leaf)
        states = encoder(ids)[0]
        hook.remove()
        eps = model.pipe.unet(noisy, t, states.expand(2, -1, -1)).sample
        (slope,) = torch.autograd.grad(((eps - noise) ** 2).mean(), leaf)
    gradient = words.embeddings["text_encoder"] @ slope[0, 1]
    assert gradient[chosen] < 0
    assert 0.1 < (gradient > 0).float().mean() < 0.9


def test_prefixes_stand_before_the_models_own_prompts(model: Model) -> None:
    found = find("unlearndiffatk").search(dataclasses.replace(victim(model), seed=3))
    assert found.attempts[0].prompt.endswith(" cat")
    assert found.attempts[1].prompt.endswith(" a photo of a cat")
    assert "cat" not in found.attempts[1].prompt.removesuffix(" a photo of a cat").split()
    assert fits(model, "a photo of a cat", 9) == 5  # of ten tokens
    with pytest.raises(InputError, match="leaves no room for words before it"):
        fits(model, "a photo of a cat in the style of neon", 1)


# P4D


def test_p4d_loss_is_the_distance_from_what_the_untouched_model_predicts(model: Model) -> None:
    one, pipe = victim(model, applied=worn(model)), model.pipe
    x, t = (
        torch.randn((2, *model.shape), generator=torch.Generator().manual_seed(0)),
        torch.tensor([100, 800]),
    )
    words = words_of(model)
    which = torch.tensor([words.texts.index("photo"), words.texts.index("dog")])
    with torch.no_grad():
        aim = model.pipe.unet(x, t, pipe.encode_prompt("a cat", "cpu", 2, False)[0]).sample
        with one.edited():
            found = loss(model, x, t, aim, placeholder(pipe, 2), words.exact(which))
            again = model.pipe.unet(x, t, pipe.encode_prompt("photo dog", "cpu", 2, False)[0]).sample
    assert found.item() == pytest.approx(((again - aim) ** 2).mean().item(), rel=1e-5)


def test_p4d_starts_from_the_words_nearest_to_random_vectors(model: Model) -> None:
    one = Victim(model, Concept("cat"), dataclasses.replace(TINY, steps=1))
    found = P4D(length=3, prompts=1).search(one)
    words, table = words_of(model, ["cat"]), words_of(model, ["cat"]).embeddings["text_encoder"].numpy()
    start = random_vectors(model.pipe, 3, one.stream("p4d", 0))["text_encoder"].numpy()
    near = start @ table.T / np.linalg.norm(table, axis=1)
    assert found.attempts[0].prompt == " ".join(words.texts[i] for i in near.argmax(1))


def test_p4d_finds_words_with_a_lower_loss_than_those_it_starts_from(model: Model) -> None:
    def searched(steps: int) -> str:
        one = Victim(
            model, Concept("cat"), dataclasses.replace(TINY, steps=steps, batch=16), applied=worn(model)
        )
        return P4D(length=4, prompts=1).search(one).attempts[0].prompt

    x = torch.randn((64, *model.shape), generator=torch.Generator().manual_seed(1))
    t = torch.arange(64) * 15
    start, end, aim = (model.encode([text] * 64) for text in (searched(1), searched(60), "cat"))
    with torch.no_grad():
        aimed = model.eps(x, t, aim)
        with victim(model, applied=worn(model)).edited():
            far = [(model.eps(x, t, one) - aimed).square().mean().item() for one in (start, end)]
    assert far[1] < far[0]


# Ring-A-Bell


def test_ring_a_bell_direction_is_the_mean_over_pairs(model: Model) -> None:
    pairs = [("cat", ""), ("a photo of a cat", "a photo of a"), ("cat in a picture", "in a picture")]
    with torch.no_grad():
        rows = [model.pipe.encode_prompt(list(pair), "cpu", 1, False)[0] for pair in pairs]
    expected = sum(named - rest for named, rest in rows) / 3
    torch.testing.assert_close(direction(victim(model)), expected, rtol=0, atol=1e-6)


def test_ring_a_bell_finds_words_nearer_than_any_it_drew_first(model: Model) -> None:
    attack = RingABell(length=3, prompts=1, strength=2.0)
    one = Victim(model, Concept("cat"), dataclasses.replace(TINY, steps=25, candidates=10))
    found = attack.search(one).attempts[0].prompt
    aim = model.encode(["cat"])[0] + 2 * direction(one)
    words = words_of(model, ["cat"])
    first = torch.randint(len(words), (20, 3), generator=one.stream("ring_a_bell", 0))
    far = [(model.encode([text])[0] - aim).norm().item() for text in (found, *map(words.text, first))]
    assert far[0] < min(far[1:])
    assert len(found.split()) == 3


def test_a_child_crosses_half_the_time_and_changes_one_word_a_quarter() -> None:
    parents, draws = torch.tensor([[0] * 8, [1] * 8]), torch.Generator().manual_seed(0)
    rows = [child(parents, 1000, draws) for _ in range(2000)]
    new = sum((row > 1).sum().item() for row in rows)
    assert all((row > 1).sum() <= 1 for row in rows)
    assert new == pytest.approx(0.25 * 2000 * 998 / 1000, abs=60)
    mixed = sum(len(set(row[row < 2].tolist())) == 2 for row in rows)
    # crossed (1/2), the parents differ (1/2), and the place is not the first (7/8)
    assert mixed == pytest.approx(2000 / 2 / 2 * 7 / 8, abs=80)


# MMA


def test_mma_similarity_is_the_cosine_of_clips_pooled_vectors(model: Model) -> None:
    encoder, tokenizer = model.pipe.text_encoder, model.pipe.tokenizer
    with torch.no_grad():
        ids = tokenizer(["cat", "photo dog"], padding="max_length", return_tensors="pt").input_ids
        cat, dog = encoder(ids).pooler_output.numpy()
        with pooled(model.pipe) as sentence:
            model.conditioning(["cat"])
            aim = dict(sentence)
            model.conditioning(["photo dog"])
            found = similarity(sentence, aim).item()
    assert found == pytest.approx(cat @ dog / np.linalg.norm(cat) / np.linalg.norm(dog), rel=1e-5)


def test_mma_finds_a_sentence_nearer_than_its_start(model: Model) -> None:
    one = Victim(model, Concept("cat"), dataclasses.replace(TINY, steps=24, candidates=8))
    found = MMA(length=4, prompts=1).search(one).attempts[0].prompt
    words = words_of(model, ["cat"])
    start = words.text(torch.randint(len(words), (4,), generator=one.stream("mma", 0)))

    def near(text: str) -> float:
        ids = model.pipe.tokenizer([text, "cat"], padding="max_length", return_tensors="pt").input_ids
        with torch.no_grad():
            return torch.cosine_similarity(*model.pipe.text_encoder(ids).pooler_output, dim=0).item()

    assert near(found) > near(start)
    assert "cat" not in found.split()
