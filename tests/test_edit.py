from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from unlearnkit.edit import Edit
from unlearnkit.errors import EditError, InputError
from unlearnkit.model import Model

values = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=6)
names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
facts = st.dictionaries(
    st.text(max_size=5),
    st.one_of(st.integers(1 - 2**63, 2**63 - 1), st.text(max_size=5), st.booleans()),
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
    with pytest.raises(EditError, match="cannot be read: No such file"):
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


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edit.safetensors"
    old = Edit({"a": torch.zeros(2)})
    old.save(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearnkit.tensors.save_file", full)
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
