"""Concepts that lie in the span of what is retained are named before anything is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from unlearnkit.errors import InputError
from unlearnkit.methods import UCE, edit_for
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.closed_form import refuse_clashes

SAME = Request((Concept("cat"), Concept("bear")), keep=(Concept("kitten"),))


def test_names_are_those_whose_every_column_is_held() -> None:
    refuse_clashes(["cat", "cat", "dog"], torch.tensor([0.0, 0.5, 0.2]), 0.2)
    with pytest.raises(InputError, match=r"^'dog' lies in the span of what is retained: retain less"):
        refuse_clashes(["cat", "cat", "dog"], torch.tensor([0.0, 0.5, 0.1]), 0.2)
    names = [f"w{n}" for n in range(9)]
    with pytest.raises(InputError, match=r"^'w0', 'w1', 'w2', 'w3', 'w4' and 4 more lie in the span"):
        refuse_clashes(names, torch.zeros(9), 0.01)


def test_the_share_of_uce_by_hand_and_by_its_solution() -> None:
    # λ = 1 and one retained k = (3, 0): q = 1/10 for c = (1, 0), which comes 1/11 of its way; (0, 1) comes 1/2
    c, retained = torch.eye(2, dtype=torch.float64), torch.diag(torch.tensor([9.0, 0.0], dtype=torch.float64))
    method = {least: UCE(ridge=1.0, free=least) for least in (1 / 11 - 1e-6, 1 / 11 + 1e-6, 0.51)}
    method[1 / 11 - 1e-6].check(c, ["cat", "dog"], retained)
    with pytest.raises(InputError, match=r"^'cat' lies"):
        method[1 / 11 + 1e-6].check(c, ["cat", "dog"], retained)
    with pytest.raises(InputError, match=r"^'cat', 'dog' lie"):
        method[0.51].check(c, ["cat", "dog"], retained)
    # by an independent route: how far the solution takes c = (1, 0) towards any g
    erased, g = np.array([[1.0, 0.0]]).T, np.array([[0.3, -2.0]]).T
    old = np.array([[2.0, 1.0], [0.5, -1.0]])
    new = (old + old @ g @ erased.T + old @ retained.numpy()) @ np.linalg.inv(
        np.eye(2) + erased @ erased.T + retained.numpy()
    )
    np.testing.assert_allclose((new - old) @ erased, old @ (g - erased) / 11)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("uce", {"retain_weight": 1e9}),
        ("uce-diverse", {"retain_weight": 1e12, "sentences": 2, "retain_sentences": 2}),
        ("rece", {"retain_weight": 1e9}),
        ("speed", {"threshold": 1e-6}),
        ("dp", {"protected": 1.0}),
        ("oce", {"erase_weight": 0.0}),
    ],
)
def test_every_closed_form_names_what_clashes(
    method: str, settings: dict[str, float], make: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kitten is kept and reads as cat; nothing else is, so every other word of the toy stays free."""
    model = make()
    encode = model.text
    monkeypatch.setattr(
        model, "text", lambda prompts: encode([one.replace("kitten", "cat") for one in prompts])
    )
    with pytest.raises(InputError, match=r"^'cat'.* in the span of what is retained"):
        edit_for(model, SAME, method=method, settings=settings)
