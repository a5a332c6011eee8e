"""Sweeps: cells, resuming after kills, several processes by submitit, and the table."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from test_chain import killed_after
from test_chain_harm import classifier

import saved
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.io.manifest import file_hash
from unlearnkit.sweep.plan import read_sweep
from unlearnkit.sweep.table import results
from unlearnkit.sweep.work import carry_out

SWEEP = """
model = "{model}"
seeds = [0, 1]
concepts = "names.txt"
[[methods]]
name = "uce"
settings = {{ ridge = [0.1, 1.0], erase_weight = 2.0 }}
[[methods]]
name = "ga"
settings = {{ steps = 2, batch = 2, trains = "xattn", pictures = 2 }}
[evaluation]
suite = "prompts"
file = "rows.csv"
objects = "{objects}"
"""
ROWS = "prompt,role,form,object\na cat,erased,name,cat\na dog,near,name,dog\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sweep of twelve cells: three variants, two concepts, two seeds."""
    (tmp_path / "names.txt").write_text("cat\nvan gogh\n")
    (tmp_path / "rows.csv").write_text(ROWS)
    classifier(tmp_path / "eye")
    (tmp_path / "sweep.toml").write_text(SWEEP.format(model=saved.folder(), objects="eye"))
    return tmp_path / "sweep.toml"


def contents(out: Path) -> dict[str, object]:
    """What is the same whenever it is made: everything but times."""
    found: dict[str, object] = {}
    for path in out.rglob("*"):
        name = str(path.relative_to(out))
        if path.name in (".lock", "run.json", "evaluation.json", "log.jsonl") or not path.is_file():
            found[name] = "with times"
        elif path.name == "edit.safetensors":
            found[name] = json.loads((path.parent / "run.json").read_text())["edit"]
        else:
            found[name] = file_hash(path)
    return found


def test_a_cell_for_every_method_setting_concept_and_seed(file: Path) -> None:
    cells = read_sweep(file).cells
    assert len(cells) == len({cell.name for cell in cells}) == 12
    assert [cell.variant for cell in cells[::4]] == ["uce ridge=0.1", "uce ridge=1.0", "ga"]
    assert {cell.recipe.seed for cell in cells} == {0, 1}
    assert cells[2].recipe.request.erase[0].kind == "style"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"uce"', '"uec"', "[[methods]] number 1: method 'uec' is unknown (did you mean 'uce'?)"),
        ("ridge", "rigde", "[[methods]] number 1: setting 'rigde' is unknown (did you mean 'ridge'?)"),
        ("steps = 2", "steps = [2, -1]", "setting 'steps' got -1"),
        ("seeds", "seed", "unknown key 'seed' (did you mean 'seeds'?)"),
        ('"prompts"', '"prompt"', "suite 'prompt' is unknown"),
        ("names.txt", "none.txt", "cannot be read: it does not exist"),
        ("[0, 1]", "[0, 0]", "twice"),
        ("[0, 1]", "[]", "has no cell"),
        ("[0.1, 1.0]", "[]", "setting 'ridge' has an empty list"),
        ('"rows.csv"', '"row.csv"', "[evaluation]: file"),
        ('"rows.csv"', '"rows.csv"\nreplicates = -3', "[evaluation]: replicates"),
    ],
)
def test_what_cannot_be_run_is_named_before_any_work(file: Path, old: str, new: str, says: str) -> None:
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_sweep(file)
    assert says in str(caught.value)


def test_names_in_other_letters_are_cells_of_their_own(file: Path) -> None:
    for names in ("猫\n犬\n", "Café\ncafe\n"):
        (file.parent / "names.txt").write_text(names)
        assert len({cell.name for cell in read_sweep(file).cells}) == 12


def test_old_results_do_not_pass_for_those_of_another_sweep(file: Path, tmp_path: Path) -> None:
    text = (
        file.read_text().replace("[0, 1]", "[0]").replace("[0.1, 1.0]", "1.0").replace("names.txt", "one.txt")
    )
    (tmp_path / "one.txt").write_text("cat\n")
    file.write_text(text)
    assert carry_out(read_sweep(file), tmp_path / "out") == {}
    file.write_text(text + "quick = false\n")
    with pytest.raises(InputError, match=r"begun with another \[evaluation\] \(quick\)"):
        carry_out(read_sweep(file), tmp_path / "out")
    other = shutil.copytree(saved.folder(), tmp_path / "other")
    file.write_text(text.replace(str(saved.folder()), str(other)))
    failed = carry_out(read_sweep(file), tmp_path / "out")
    assert len(failed) == 2 and all("holds a run of another recipe" in why for why in failed.values())
    found = results(read_sweep(file), tmp_path / "out", failed)
    assert all("error" in cell for cell in found["cells"])


def test_a_retained_picture_counts_once(file: Path, tmp_path: Path) -> None:
    rows = ("prompt,role,form,object,style", "a cat,erased,name,cat,", "a dog,near,name,dog,neon")
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    (tmp_path / "one.txt").write_text("cat\n")
    text = file.read_text().replace("[0, 1]", "[0]").replace("names.txt", "one.txt")
    file.write_text(text + "quick = false\n")
    assert carry_out(read_sweep(file), tmp_path / "out") == {}
    assert {one["others"] for one in results(read_sweep(file), tmp_path / "out", {})["cells"]} == {1}


@pytest.mark.parametrize("seeds", ["[0]", pytest.param("[0, 1]", marks=pytest.mark.slow)])
def test_a_sweep_killed_twice_ends_with_the_same_files(
    seeds: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text().replace("[0, 1]", seeds))
    plan, whole, out = read_sweep(file), tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    assert carry_out(plan, whole) == {}
    took, kills = time.monotonic() - began, 0
    for _ in range(2):  # in other cells on other machines
        kills += killed_after(took / 4, lambda: carry_out(plan, out))
    assert kills == 2
    with pytest.raises(SystemExit, match="0"):
        main(["sweep", str(file), "--out", str(out), "--json"])
    answer = json.loads(capsys.readouterr().out)
    made = {Path(name).name for name in answer["files"]}
    assert made == {"sweep.json", "sweep.md", "sweep.html", "pareto.png"}
    found = contents(out)
    assert {name: value for name, value in found.items() if name not in made} == contents(whole)
    assert results(plan, whole, {}) == {name: answer[name] for name in ("cells", "variants")}
    assert [one["cells"] for one in answer["variants"]] == [len(plan.cells) / 3] * 3
    assert any(one["best"] for one in answer["variants"])


@pytest.mark.slow
def test_workers_share_a_sweep(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By submitit, in a process of its own. A cell that fails leaves the others alone."""
    pytest.importorskip("submitit")
    text = (
        file.read_text()
        .replace("[0.1, 1.0]", "0.1")
        .replace("steps = 2", "steps = 4")
        .replace("[0, 1]", "[0]")
    )
    file.write_text(text.replace("pictures = 2", "lr = 1.0e12"))
    words = ["sweep", str(file), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--workers", "2", "--engine", "slurm", "--parameter", "slurm_partition=none"])
    assert capsys.readouterr().err.startswith("slurm cannot be used: ")
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--workers", "2", "--json"])
    told = capsys.readouterr()
    cells = json.loads(told.out)["cells"]
    assert [one["variant"] for one in cells] == ["uce", "uce", "ga", "ga"]
    assert ["error" in one for one in cells] == [False, False, True, True]
    assert "the loss" in cells[2]["error"] and cells[2]["error"] in told.err
