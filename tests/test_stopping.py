"""Early stopping by the validation classifier, on the canvas model that ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from unlearnkit.canvas import WEIGHTS
from unlearnkit.canvas.validation import validation_classifier
from unlearnkit.errors import InputError
from unlearnkit.methods import edit_for
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.schema import Concept, Request
from unlearnkit.training.job import Job
from unlearnkit.training.stopping import accuracy_score, erasure_score

shipped = pytest.mark.skipif(not (WEIGHTS / "SHA256SUMS").is_file(), reason="no weights are shipped yet")


@pytest.fixture(scope="module")
def canvas() -> Model:
    return load("canvas")


@shipped
def test_the_untouched_canvas_and_one_without_text_score_about_100(canvas: Model) -> None:
    """All of the concept is left and nothing is lost: 100. Without text everything is gone: about 100 again."""
    score = accuracy_score(canvas, Request((Concept("cat"),)), pictures=6)
    assert 80 <= score(canvas, 0) <= 120
    nothing = {name: weight * 0 for name, weight in canvas.weights("xattn-kv").items()}
    with canvas.wearing(nothing):
        lost = score(canvas, 0)
    assert lost >= 50


@shipped
def test_an_unknown_concept_is_one_clear_line(canvas: Model) -> None:
    assert "zebra" not in validation_classifier().objects
    with pytest.raises(InputError, match=r"does not know the object 'zebra'.*stop=none"):
        accuracy_score(canvas, Request((Concept("zebra"),)))


@shipped
def test_training_stops_when_the_score_does_not_improve(canvas: Model, tmp_path: Path) -> None:
    settings = {"steps": 9, "lr": 0.0, "batch": 1, "pictures": 2, "retain_weight": 0.0}
    settings |= {"stop": "guide", "stop_every": 1}
    request, quick = Request((Concept("cat"),)), Model(canvas.pipe, hints=replace(canvas.hints, steps=1))
    with pytest.raises(InputError, match="changes no weight"):  # at lr 0
        edit_for(quick, request, method="esd", settings=settings, job=Job(folder=tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # at lr 0 the first score is the best, the fourth ends it
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["score"] == lines[1]["score"]


@shipped
def test_training_stops_as_soon_as_enough_is_gone(canvas: Model, tmp_path: Path) -> None:
    seen = erasure_score(canvas, Request((Concept("cat"),)), pictures=4)
    assert seen(canvas, 0) >= 0.75
    settings = {
        "steps": 3,
        "lr": 0.0,
        "batch": 1,
        "pictures": 2,
        "retain_weight": 0.0,
        "stop": "erased",
        "stop_every": 1,
    }
    quick = Model(canvas.pipe, hints=replace(canvas.hints, steps=2))
    for share, steps in ((1.0, 1), (0.0, 3)):
        job = Job(folder=tmp_path / str(steps))
        request, given = Request((Concept("cat"),)), settings | {"stop_at": share}
        with pytest.raises(InputError, match="changes no weight"):  # at lr 0
            edit_for(quick, request, method="esd", settings=given, job=job)
        lines = (tmp_path / str(steps) / "log.jsonl").read_text().splitlines()
        assert len(lines) == steps
