"""A name that means nothing to the model is refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearnkit import seeds
from unlearnkit.cli import main
from unlearnkit.data.recognition import MADE_UP, PICTURES, check_recognised, gains
from unlearnkit.errors import InputError, ModelError
from unlearnkit.model import hints
from unlearnkit.model.model import Model
from unlearnkit.model.sampling import sample_latents
from unlearnkit.schema import Concept, Request


def test_the_gain_is_that_of_the_losses(model: Model):
    """By another route: row by row, with squared norms."""
    form = model.hints.templates["object"][0]
    numbers = [seeds.derive(0, "recognition", form, i) for i in range(PICTURES)]
    how = {"steps": min(6, model.hints.steps), "guidance": model.hints.guidance}
    x = sample_latents(model, [form.format("zebu")] * PICTURES, numbers, **how)
    noise = torch.randn(x.shape, generator=seeds.stream(0, "recognition", form))
    t = torch.tensor([int(0.6 * model.num_timesteps)])
    ratios = []
    with torch.no_grad():
        for i in range(PICTURES):
            losses = {}
            for word in ("zebu", *MADE_UP):
                x_t = model.add_noise(x[i : i + 1], noise[i : i + 1], t)
                eps = model.eps(x_t, t, model.encode([form.format(word)]))
                wanted = model.training_target(x[i : i + 1], noise[i : i + 1])
                losses[word] = float((eps - wanted).norm() ** 2)
            own = losses.pop("zebu")
            ratios.append(sum(losses.values()) / len(losses) / own - 1)
    assert next(gains(model, Concept("zebu"))) == pytest.approx(sum(ratios) / PICTURES, abs=1e-5)


def test_a_word_outside_the_vocabulary_needs_a_gain(model: Model):
    check_recognised(model, Request((Concept("zebu"),)))  # these hints have no [recognition]
    strict = model.with_hints(replace(model.hints, recognition={"object": 1000.0}))
    check_recognised(strict, Request((Concept("Cat"), Concept("zebu", "style"))))
    with pytest.raises(InputError, match=r"does not seem to know the object 'catt' \(did you mean 'cat'\?\)"):
        check_recognised(strict, Request((Concept("dog"), Concept("catt"))))


def test_the_hints_have_one_number_a_kind():
    assert hints.parse("[recognition]\nobject = 0.2").recognition == {"object": 0.2}
    for bad in ("object = -1", 'object = "much"', "thing = 1"):
        with pytest.raises(ModelError, match="recognition"):
            hints.parse(f"[recognition]\n{bad}")


def test_the_canvas_refuses_a_slip_and_force_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def ended(*words: str) -> tuple[Any, str]:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        return stopped.value.code, capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    words = ("erase", "canvas", "--concept", "kat", "--method", "uce", "--dry-run")
    code, said = ended(*words)
    assert code == 2 and said.count("\n") == 1
    assert "canvas does not seem to know the object 'kat' (did you mean 'cat'?)" in said and "--force" in said
    assert ended(*words, "--force")[0] == 0
    assert ended("chain", "init", "project", "canvas", "--pictures", "0")[0] == 0
    code, said = ended("chain", "add", "project", "--concept", "kat", "--method", "uce")
    assert code == 2 and "does not seem to know" in said
