from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from unlearnkit.errors import EditError, InputError
from unlearnkit.io import manifest
from unlearnkit.model.edit import TYPES, Edit
from unlearnkit.model.model import Model
from unlearnkit.runs import runfolder

values = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=6)
names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__" and not name.startswith("hooks.")
)
facts = st.dictionaries(
    st.text(max_size=5).filter(lambda name: name not in TYPES),
    st.one_of(st.integers(-(2**62), 2**62), st.text(max_size=5), st.booleans()),
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(names, values, max_size=4), facts)
def test_save_and_load_give_the_same_edit(
    tmp_path: Path, found: dict[str, list[float]], facts: dict[str, object]
) -> None:
    edit = Edit({name: torch.tensor(value, dtype=torch.float32) for name, value in found.items()}, facts)
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert again.hash() == edit.hash()
    assert again.facts == facts
    assert [path.name for path in tmp_path.iterdir()] == ["edit.safetensors"]


def test_the_hash_is_of_names_shapes_and_values_only() -> None:
    weight = torch.arange(6.0)
    first = Edit({"a": weight, "b": weight}, {"made": "today"}).hash()
    assert Edit({"b": weight.clone(), "a": weight}, {"made": "tomorrow"}).hash() == first
    assert Edit({"a": weight, "c": weight}).hash() != first
    assert Edit({"a": weight.view(2, 3), "b": weight}).hash() != first
    assert Edit({"a": weight, "b": weight + 1e-6}).hash() != first


@pytest.mark.parametrize("bad", [torch.tensor([float("nan")]), torch.zeros(2, dtype=torch.float64)])
def test_an_edit_is_finite_and_fp32(bad: torch.Tensor) -> None:
    with pytest.raises(EditError, match="weight 'a'"):
        Edit({"a": bad})


def test_files_that_are_no_edits(tmp_path: Path) -> None:
    path = tmp_path / "edit.safetensors"
    with pytest.raises(EditError, match="cannot be read: it does not exist"):
        Edit.load(path)
    path.write_bytes(b"garbage")
    with pytest.raises(EditError, match="is damaged"):
        Edit.load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(EditError, match="not written by unlearnkit"):
        Edit.load(path)
    Edit({"a": torch.zeros(100)}).save(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(EditError, match="is damaged"):
        Edit.load(path)


FACTS: dict[str, Any] = {
    "base": "ab" * 32,
    "method": "esd",
    "seed": 3,
    "settings": {"lr": 1e-05, "name": "é\n", "on": True},
    "request": {"erase": [{"name": "cat"}]},
}


def test_a_flip_of_any_byte_is_found(tmp_path: Path) -> None:
    """Also one that gives another spelling of the same value: 1e-05 and 1E-05, \\u00e9 and \\u00E9."""
    path = tmp_path / "edit.safetensors"
    edit = Edit({"unet.a\x1f": torch.arange(300.0), "unet.b": torch.ones(2, 3)}, FACTS)
    edit.save(path)
    data = path.read_bytes()
    start, draws = 8 + struct.unpack("<Q", data[:8])[0], random.Random(0)
    places = [*range(start), *draws.sample(range(start, len(data)), 60)]
    missed = []
    for place in places:
        for change in (0x20, 1 << draws.randrange(8), draws.randrange(1, 256)):
            path.write_bytes(data[:place] + bytes([data[place] ^ change]) + data[place + 1 :])
            try:
                Edit.load(path)
                missed.append((place, change))
            except EditError as error:
                assert "\n" not in str(error)
    assert missed == []
    for length in [0, 7, 8, start - 1, start, *draws.sample(range(len(data)), 60)]:
        path.write_bytes(data[:length])
        with pytest.raises(EditError):
            Edit.load(path)


def test_the_seal_is_of_weights_and_facts() -> None:
    weight = torch.arange(6.0)
    edit = Edit({"a": weight}, FACTS)
    assert edit.seal() == Edit({"a": weight.clone()}, json.loads(json.dumps(FACTS))).seal()
    assert edit.seal() != Edit({"a": weight}, FACTS | {"seed": 4}).seal()
    assert edit.seal() != Edit({"a": weight + 1}, FACTS).seal()
    assert edit.hash() == Edit({"a": weight}, FACTS | {"seed": 4}).hash()


def test_changed_facts_are_refused_and_files_without_a_seal_still_open(tmp_path: Path) -> None:
    path = tmp_path / "edit.safetensors"
    edit = Edit({"a": torch.zeros(2)}, FACTS)
    edit.save(path)
    with safe_open(path, framework="pt") as file:
        written = json.loads(file.metadata()["unlearnkit"])
    for forged in (
        written | {"method": "uce"},
        {name: value for name, value in written.items() if name != "sealed"},
        {name: value for name, value in written.items() if name != "sealed-form"},
    ):
        save_file(edit.weights, path, {"unlearnkit": json.dumps(forged, sort_keys=True)})
        with pytest.raises(EditError, match=r"^edit '.*edit.safetensors' was changed after it was written"):
            Edit.load(path)
    save_file(edit.weights, path, {"unlearnkit": json.dumps(FACTS)})  # as earlier versions did
    again = Edit.load(path)
    assert (again.facts, again.hash(), again.seal()) == (FACTS, edit.hash(), edit.seal())


@pytest.mark.parametrize(
    "facts",
    [
        *("null", "[]", "3", '"text"', "[" * 5000, '{"a": ' * 5000, '{"seed": ' + "9" * 5000 + "}"),
        *('{"base": null}', '{"source": 3}', '{"dtype": []}', '{"seed": true}', '{"settings": []}'),
        *('{"a": NaN}', '{"a": 1e999}', '{"request": "cat"}', '{"method": {}}', "{"),
    ],
)
def test_facts_of_a_wrong_kind_are_one_line(facts: str, tmp_path: Path) -> None:
    path = tmp_path / "edit.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"unlearnkit": facts})
    with pytest.raises(EditError, match=r"^edit '.*' (is damaged|holds)[^\n]*$") as caught:
        Edit.load(path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("facts", [None, [], {"base": 5}, {"seed": True}, {"source": None}, {"settings": []}])
def test_an_edit_in_memory_has_facts_of_the_right_types(facts: Any) -> None:
    with pytest.raises(EditError, match=r"^the edit is damaged: [^\n]*$"):
        Edit({"a": torch.zeros(2)}, facts)


DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**70, {1, 2}, torch.zeros(2), DEEP])
def test_facts_that_could_not_be_read_again_are_not_saved(value: Any, tmp_path: Path) -> None:
    with pytest.raises(EditError, match=r"^the edit[^\n]*$"):
        Edit({"a": torch.zeros(2)}, {"a": value}).save(tmp_path / "edit.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_runs_that_name_the_hash_of_the_whole_file_are_still_whole(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated, tmp_path / "run")
    facts = runfolder.read(tmp_path / "run")
    assert facts["seal"] == Edit.load(evaluated / runfolder.EDIT).seal()
    assert list(runfolder.findings(tmp_path / "run")) == []
    facts["seal"] = manifest.file_hash(evaluated / runfolder.EDIT)
    (tmp_path / "run" / runfolder.RUN).write_text(manifest.dump(facts))
    assert list(runfolder.findings(tmp_path / "run")) == []


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edit.safetensors"
    old = Edit({"a": torch.zeros(2)})
    old.save(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearnkit.io.tensors.save_file", full)
    with pytest.raises(InputError, match="No space left on device"):
        Edit({"a": torch.ones(2)}).save(path)
    assert Edit.load(path).hash() == old.hash()
    assert [found.name for found in tmp_path.iterdir()] == ["edit.safetensors"]


def test_an_edit_of_another_model_is_refused(make: Callable[..., Model]) -> None:
    model, other = make(seed=0), make(seed=1)
    weight = torch.zeros_like(next(iter(model.weights("xattn-kv").values())))
    name = next(iter(model.weights("xattn-kv")))
    edit = Edit({name: weight}, {"base": model.fingerprint(), "source": "tiny"})
    with model.wearing(edit):
        assert not torch.equal(model.weights()[name], other.weights()[name])
    with pytest.raises(EditError, match="was made from tiny"), other.wearing(edit):
        pass
    with other.wearing(edit.weights):
        assert torch.equal(other.weights()[name], weight)


def test_an_edit_of_a_worn_model_belongs_to_the_worn_model(model: Model) -> None:
    name, weight = next(iter(model.weights("xattn-kv").items()))
    first = Edit({name: weight.detach() + 1}, {"base": model.fingerprint()})
    with model.wearing(first):
        second = Edit({name: weight.detach() + 2}, {"base": model.fingerprint()})
        with model.wearing(second):
            assert torch.equal(model.weights()[name], weight + 2)
        assert torch.equal(model.weights()[name], weight + 1)
    assert model.weights()[name] is weight
    with pytest.raises(EditError), model.wearing(second):
        pass


@pytest.mark.parametrize(
    "facts", ["[" * 3000 + "]" * 3000, "null", "[1]", '{"a": ' + "9" * 5000 + "}", '{"a": 1e999']
)
def test_facts_that_are_no_table_are_refused(tmp_path: Path, facts: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "edit.safetensors", {"unlearnkit": facts})
    with pytest.raises(EditError) as told:
        Edit.load(tmp_path / "edit.safetensors")
    assert len(str(told.value)) < 400 and "\n" not in str(told.value)
