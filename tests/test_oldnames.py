"""Settings by their names of earlier versions: refused where they are given, read where a finished run has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_chain_harm import resealed

import saved
from unlearnkit import chain
from unlearnkit.chain.guards import Guards
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.evaluation.verify import check
from unlearnkit.methods import METHODS
from unlearnkit.model.edit import Edit
from unlearnkit.model.load import load
from unlearnkit.model.model import Model
from unlearnkit.oldnames import _REMOVED, OLD, current
from unlearnkit.runs.run import erase
from unlearnkit.settings import build, describe, parse_pairs

FEW: dict[str, Any] = {
    "steps": 2,
    "lr": 1e-3,
    "batch": 1,
    "pictures": 2,
    "mask_warmup": 1,
    "retain_weight": 0.5,
}
EARLIER = {  # what the last version wrote for these
    "teacher": ("target", lambda value: {"frozen": "teacher"}.get(value, value)),
    "retain_weight": ("align", float),
    "retain_set": ("aligned", str),
    "eta": ("away", float),
    "distil_weight": ("distil", float),
    "replay_weight": ("replay", float),
    "prompt_dropout": ("untold", float),
}
GONE = {"mask_swap": 0.2, "mask_until": 0.8, "mask_gate": "weights", "optimiser": "adam"}


def as_before(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of Sculpting Memory as the last version wrote them."""
    found = dict(GONE)
    for name, value in settings.items():
        old, change = EARLIER.get(name, (name, lambda same: same))
        found[old] = change(value)
    return found


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def test_every_old_name_leads_to_a_setting_and_is_none_itself() -> None:
    for (method, old), new in OLD.items():
        names = {one.name for one in describe(METHODS[method])}
        assert new in names and old not in names, (method, old)
    for method, gone in _REMOVED.items():
        names = {one.name for one in describe(Guards if method == "guards" else METHODS[method])}
        assert names.isdisjoint(gone), method


@pytest.mark.parametrize(
    ("pair", "method", "says"),
    [
        ("keep=1", "esd", "setting 'keep' of esd is now 'retain_weight'"),
        ("target=teacher", "salun", "setting 'target' of salun is now 'teacher'"),
        ("erase=0", "duge", "setting 'erase' of duge is now 'attention_weight'"),
        ("optimiser=adam", "ca", "setting 'optimiser' of ca was removed: leave it out"),
    ],
)
def test_an_old_name_is_answered_with_the_new_one(
    pair: str, method: str, says: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    words = ["--concept", "cat", "--method", method, "--out", tmp_path / "run"]
    assert refused("erase", saved.folder(), *words, "--set", pair).endswith(says)
    name, _, value = pair.partition("=")
    value = value if value.isdecimal() else json.dumps(value)
    recipe = f'model = "{saved.folder()}"\nmethod = "{method}"\n[[erase]]\nname = "cat"\n[settings]\n'
    (tmp_path / "recipe.toml").write_text(f"{recipe}{name} = {value}\n")
    assert refused("erase", "--recipe", tmp_path / "recipe.toml").endswith(says)
    model = Path(shutil.copytree(saved.folder(), tmp_path / "model"))
    with (model / "unlearnkit.toml").open("a") as file:
        file.write(f"[methods.{method}.object]\n{name} = {value}\n")
    assert refused("erase", model, *words).endswith(says)
    assert not (tmp_path / "run").exists()


def test_a_guard_that_was_removed_is_refused() -> None:
    with pytest.raises(InputError, match="setting 'l1sp_first' of guards was removed: leave it out"):
        parse_pairs(["l1sp_first=1"], Guards)


def test_values_are_translated_too_and_what_means_something_else_stays() -> None:
    assert current("rgd", {"erase_scale": "first", "cap": 1.0}) == {"relative_erase": True, "cap": 1.0}
    assert current("uce", {"erase_scale": 5.0}) == {"erase_weight": 5.0}
    assert current("sculpting", {"target": "teacher"}) == {"teacher": "frozen"}
    assert current("ca", {"target": "model", "hold_start": False}) == {"target": "model"}
    assert current("esd", {"eta_is": "paper"}) == {}
    other = current("esd", {"eta_is": "released"})
    with pytest.raises(InputError, match="'eta_is' of esd was removed"):  # never made again as something else
        build(METHODS["esd"], other)


def test_a_finished_run_of_an_earlier_version_is_read_verified_resumed_and_exported(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    erase(load(saved.folder()), "cat", method="sculpting", out=run, **FEW)
    edit = Edit.load(run / "edit.safetensors")
    facts = edit.facts | {"settings": as_before(edit.facts["settings"]), "identity": "0" * 64}
    Edit(edit.weights, facts).save(run / "edit.safetensors")
    lines = []
    for line in (run / "recipe.toml").read_text().splitlines():
        old, _ = EARLIER.get(line.partition(" = ")[0], ("", str))
        lines.append(
            line if not old else f"{old} = {line.partition(' = ')[2]}".replace('"frozen"', '"teacher"')
        )
    lines += [f"{name} = {json.dumps(value)}" for name, value in GONE.items()]
    (run / "recipe.toml").write_text("\n".join(lines) + "\n")
    made = json.loads((run / "run.json").read_text())
    old = {name: made[name] for name in ("edit", "base", "seconds", "resumed", "finished", "device")}
    (run / "run.json").write_text(json.dumps(old))
    assert check(run)[0] == []
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace("align = 0.5", "align = 0.75"))
    assert check(run)[0] == ["recipe.toml has another retain_weight than edit.safetensors"]
    (run / "recipe.toml").write_text(text)
    shutil.rmtree(run / "pipeline")
    for _ in range(2):  # the first writes the pipeline again
        with pytest.raises(SystemExit) as stopped:
            main(["erase", "--resume", "--out", str(run)])
        assert not stopped.value.code
    assert check(run)[0] == [] and (run / "pipeline").is_dir()
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(run), "--out", str(tmp_path / "lora.safetensors"), "--lose", "0.1"])
    assert not stopped.value.code
    assert "is now" in refused("erase", "--recipe", run / "recipe.toml", "--out", tmp_path / "new")


def test_a_chain_of_an_earlier_version_is_read_and_goes_on(model: Model, tmp_path: Path) -> None:
    project, guards = tmp_path / "p", {"bank": 0, "replay": 0}
    chain.init(project, model, method="sculpting", settings=FEW, guards=guards, pictures=0)
    for name in ("cat", "dog", "bear"):
        entry = chain.add(project, name, instead="car", model=model)
    for number, kind in enumerate(("init", "add", "add", "add")):
        facts = json.loads((project / "ledger.jsonl").read_text().splitlines()[number])["facts"]
        at = facts if kind == "init" else facts["recipe"]
        at["settings"] = as_before(at["settings"])
        at["guards"] |= {"bank_holds": "pictures", "l1sp_first": 0.0, "l2sp_first": 0.0}
        resealed(project, number, facts)
    assert chain.edit(project, model=model).weights
    assert not list(chain.verify(project, model=model))
    chain.drop(project, 1, model=model)  # which makes the later ones again
    assert chain.add(project, "tree", instead="car", model=model).number == entry.number + 2
