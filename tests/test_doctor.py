"""What doctor says is missing or wrong. That all is well here is in test_json.py."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from unlearnkit.cli import main
from unlearnkit.cli.doctor import EXTRAS
from unlearnkit.model import places

ROOT = Path(__file__).parents[1]


def test_every_extra_for_users_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"test", "check"}


def test_what_is_missing_and_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  pipeline/model_index.json\n")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    monkeypatch.setattr(places, "CANVAS", tmp_path / "pipeline")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match="1"):
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    (studio,) = (line for line in lines if "extra studio" in line)
    assert studio.startswith("missing ") and "pip install 'unlearnkit[studio]'" in studio
    (canvas,) = (line for line in lines if " canvas " in line)
    assert canvas.startswith("wrong ") and "pipeline/model_index.json" in canvas
