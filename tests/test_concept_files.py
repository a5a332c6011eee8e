"""Lists of concepts in files: what is read, what is refused by line, and what a long list does to a run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import saved
from unlearnkit import methods
from unlearnkit.cli import main
from unlearnkit.errors import InputError
from unlearnkit.model.edit import Edit
from unlearnkit.model.hints import Hints
from unlearnkit.model.model import Model
from unlearnkit.runs import images
from unlearnkit.runs.concept_files import read_concepts
from unlearnkit.runs.estimate import estimate
from unlearnkit.runs.names import default_folder
from unlearnkit.runs.recipes import load_recipe
from unlearnkit.schema import Concept, Recipe, Request

CAT = Concept("cat", phrases=("kitten", "tom cat"), instead="dog")


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_one_name_a_line(tmp_path: Path) -> None:
    file = written(tmp_path, "names.txt", "cat\r\n\n# animals\n  van   gogh  \nneon, light\n")
    known = Hints(objects=("cat",), styles=("van gogh",))
    expected = (Concept("cat"), Concept("van gogh", "style"), Concept("neon, light"))
    assert read_concepts(file, known=known) == expected
    assert read_concepts(file, kind="style")[0] == Concept("cat", "style")


def test_columns_and_tables_say_more(tmp_path: Path) -> None:
    rows = "name,kind,phrases,instead\ncat,object,kitten; tom cat,dog\nvan gogh,style,,\ndog,,,\n"
    expected = (CAT, Concept("van gogh", "style"), Concept("dog"))
    assert read_concepts(written(tmp_path, "a.csv", rows)) == expected
    tables = '[[erase]]\nname = "cat"\nphrases = ["kitten", "tom cat"]\ninstead = "dog"\n[[erase]]\nname = "van gogh"\n'
    tables += 'kind = "style"\n[[erase]]\nname = "dog"\n'
    assert read_concepts(written(tmp_path, "a.toml", tables)) == expected


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "cat\n\x07\n", "line 2: the name"),
        ("a.txt", "\n# nothing\n", "has no concepts"),
        ("a.csv", "name,kind\ncat,object\ncat,animal\n,object\n", "line 3: kind 'animal' is unknown"),
        ("a.csv", "name,kind\ncat,object\n,object\n", "line 3: the concept is empty"),
        ("a.csv", "name,instead\ncat,Cat\n", "line 2: concept 'cat' cannot be replaced by itself"),
        ("a.csv", "name,kind\ncat\n", "line 2 has 1 fields instead of 2"),
        ("a.csv", "word\ncat\n", "no column 'name'"),
        ("a.csv", "name,phrase\ncat,kitten\n", "unknown column 'phrase' (did you mean 'phrases'?)"),
        (
            "a.toml",
            '[[erase]]\nname = "cat"\n[[erase]]\nnmae = "dog"\n',
            "[[erase]] number 2 has the unknown key",
        ),
        ("a.toml", '[[keep]]\nname = "cat"\n', "unknown table 'keep'"),
        ("a.toml", "", "no table [[erase]]"),
        ("a.toml", "erase = 3\n", "where a table is expected"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_concepts(written(tmp_path, name, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_wrong_line_of_thousands_is_named_by_number(tmp_path: Path) -> None:
    lines = [f"name {number},object,,," for number in range(2, 3002)]  # line n has the concept n
    for number, line in {
        7: "a\x07,,,,",
        9: ",,,,",
        10: "b,animal,,,",
        40: "c,object",
        41: "d,object",
        700: "e,,,E,",
    }.items():
        lines[number - 2] = line
    for number in (701, 702, 900):
        lines[number - 2] = "name 2,object,other,,"
    file = written(
        tmp_path, "a.csv", "name,kind,phrases,instead,\n" + "\n".join(lines).replace("\n", "\n") + "\n"
    )
    file.write_text(file.read_text().replace(",\n", "\n"))
    with pytest.raises(InputError) as caught:
        read_concepts(file)
    said = str(caught.value)
    for number in (7, 9, 10, 40, 41):
        assert f"line {number}" in said
    assert said.endswith("and 4 more: 700 to 702, 900")
    lines = [line.rstrip(",") for line in lines if line.startswith("name ") and "other" not in line]
    right = read_concepts(written(tmp_path, "b.txt", "\n".join(line.split(",")[0] for line in lines)))
    assert len(right) == 3000 - 9


def test_a_name_on_two_lines_is_one_concept_or_refused(tmp_path: Path) -> None:
    assert read_concepts(written(tmp_path, "a.txt", "cat\nCat\n")) == (Concept("cat"),)
    rows = "name,phrases\ncat,kitten\ndog,\nkitten,\n"
    with pytest.raises(InputError, match="line 4: 'kitten' is another concept in line 2: name it once"):
        read_concepts(written(tmp_path, "a.csv", rows))


@given(st.text(max_size=60), st.sampled_from(["a.txt", "a.csv", "a.toml"]))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str, name: str) -> None:
    file = tmp_path_factory.mktemp("any") / name
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert read_concepts(file)
    except InputError as error:
        assert "\n" not in str(error)


def test_long_lists_have_folders_of_their_own() -> None:
    names = [f"somebody of number {number}" for number in range(40)]

    def folder(several: list[str]) -> str:
        return default_folder(Recipe("canvas", "uce", Request(tuple(map(Concept, several))))).name

    assert folder(["cat", "dog"]) == "uce-cat-dog-0"
    assert folder(names).startswith("uce-somebody-of-number-0-and-39-more-0-")
    assert len({folder(names), folder(names[:-1]), folder([*names[:-1], "else"])}) == 3


def test_a_grid_shows_some_of_many(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request((Concept("cat"), Concept("dog"), Concept("bear")), (Concept("car"),))
    heights = []
    for rows in (2, 3):
        monkeypatch.setattr(images, "ROWS", rows)
        heights.append(images.before_and_after(model, request, Edit({}), seeds=(0,)).height)
    assert heights[1] > heights[0]
    monkeypatch.setattr(images, "ROWS", 2)
    assert [one.name for one in images.shown(request)] == ["cat", "dog"]  # 0 and 1.5 of three
    assert images.shown(Request(request.erase[:2])) == request.erase[:2]


def test_a_dry_run_names_the_first_of_many(model: Model) -> None:
    request = Request(tuple(Concept(f"cat {number}") for number in range(300)), (Concept("car"),))
    lines = dict(estimate(model, Recipe("tiny", "uce", request)).lines())
    assert lines["erases"].startswith("cat 0, cat 1, ") and lines["erases"].endswith(" more")


def test_an_edit_of_a_long_list_has_its_hash(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(methods, "LISTED", 2)
    request = Request((Concept("cat"), Concept("dog"), Concept("bear")))
    settings = {"method": "uce", "settings": {"neighbours": 0}}
    whole = methods.edit_for(model, request, **settings)
    short = methods.edit_for(model, request, **settings, job=methods.Job(folder=tmp_path))
    listed = json.loads(json.dumps(dataclasses.asdict(request)))
    assert whole.facts["request"] == listed
    digest = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    expected = {
        "erase": listed["erase"][:2],
        "keep": [],
        "concepts": {"erase": 3, "keep": 0},
        "sha256": digest,
    }
    assert short.facts["request"] == expected and short.hash() == whole.hash()
    assert Edit.load(tmp_path / methods.EDIT).facts["request"] == expected
    assert (
        methods.edit_for(model, request, **settings, job=methods.Job(folder=tmp_path)).hash() == whole.hash()
    )


def test_a_list_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "names.csv", "name,kind\nbear,object\nvan gogh,style\n")

    def said(code: int, *more: str, words: tuple[str, ...] = ()) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*(words or ("erase", str(saved.folder()))), *more])
        told = capsys.readouterr()
        assert stopped.value.code == code, told
        return " ".join((told.out + told.err).split())

    more = ("--method", "uce", "--pictures", "0", "--no-pipeline", "--out", "run")
    assert "cat, bear, van gogh: erased" in said(0, "--concept", "cat", "--concepts", "names.csv", *more)
    erased = load_recipe(tmp_path / "run" / "recipe.toml").request.erase
    assert erased == (Concept("cat"), Concept("bear"), Concept("van gogh", "style"))
    assert "columns of --concepts" in said(2, "--concepts", "names.csv", "--instead", "dog")
    assert "does not exist" in said(2, "--concepts", "nowhere.txt")
    main_chain = ("chain", "init", "p", str(saved.folder()), "--method", "uce", "--pictures", "0")
    assert "sequential chain" in said(0, words=main_chain)
    assert "entry 1" in said(0, words=("chain", "add", "p", "--concepts", "names.csv"))
    each = ("chain", "add", "p", "--concept", "dog", "--concept", "car", "--each")
    assert "entry 3" in said(0, words=each)
    assert "2 of 2 were erased already" in said(0, words=each)
    assert "leave them out" in said(2, "--concepts", "names.csv", "--recipe", "run/recipe.toml")
