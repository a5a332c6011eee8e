"""Attacks that search for prompts: each against numbers worked out by another route."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_attacks import TINY, victim, worn

from unlearnkit.attacks import Victim, find
from unlearnkit.attacks.unlearndiffatk import UnlearnDiffAtk
from unlearnkit.attacks.words import fits, words_of
from unlearnkit.errors import InputError
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unlearndiffatk_first_step_by_the_pipelines_own_parts(seed: int, model: Model) -> None:
    """With one step, one word and Adam's first step of ±0.01 the arg-max is a word whose gradient is negative."""
    one = Victim(
        model, Concept("cat"), dataclasses.replace(TINY, steps=1, batch=2), worn=worn(model), seed=seed
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
