"""Suites: what they ask, that ids and seeds are stable, and that no malformed row goes unnoticed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from unlearnkit import suites
from unlearnkit.canvas import world
from unlearnkit.errors import InputError
from unlearnkit.metrics.stats import needed
from unlearnkit.schema import Case, Concept, Request

CAT = Request((Concept("cat"),))


def test_the_canvas_asks_for_the_erased_in_every_form() -> None:
    found, left_out = suites.cases("canvas", CAT)
    erased = [case for case in found if case.role == "erased"]
    counts = Counter(case.form for case in erased)
    assert left_out == []
    assert set(counts) == {"name", "synonym", "template", "background", "superclass"}
    for form in ("name", "synonym", "template", "background"):
        assert len({case.prompt for case in erased if case.form == form}) >= needed(0.1), form
        assert all(case.object == case.concept == "cat" for case in erased if case.form == form)
    assert any("purple background" in case.prompt for case in erased), "a pair that training never saw"
    assert all("kitt" in case.prompt for case in erased if case.form == "synonym")
    kept = [case for case in found if case.role != "erased"]
    assert {case.object for case in kept} == set(world.OBJECTS) - {"cat"}
    assert {case.object for case in kept if case.role == "near"} == {
        name for name, thing in world.OBJECTS.items() if thing.within == "animal" and name != "cat"
    }
    assert {case.style for case in kept} == set(world.STYLES)


def test_a_phrase_that_is_erased_too_is_no_synonym() -> None:
    found, _ = suites.cases("canvas", Request((Concept("cat", phrases=("kitten",)),)))
    assert all("kitty" in case.prompt for case in found if case.form == "synonym")


def test_a_style_is_asked_for_with_every_object() -> None:
    found, _ = suites.cases("canvas", Request((Concept("Van Gogh", "style"),)))
    erased = [case for case in found if case.role == "erased"]
    assert {case.object for case in erased} - {""} == set(world.OBJECTS)
    assert {case.form for case in erased} == {"name", "template", "background"}
    assert {case.style for case in found if case.role == "near"} == {"watercolor"}


@pytest.mark.parametrize("name", ["cat", "unlearn"])
def test_ids_are_plain_and_unique_and_seeds_are_stable(name: str) -> None:
    request = CAT if name == "cat" else Request((Concept("cats"),))
    one, _ = suites.cases("canvas" if name == "cat" else "unlearncanvas", request)
    assert len({case.id for case in one}) == len(one)
    assert all(case.id == Path(case.id).name and case.id.isascii() for case in one)
    if name == "cat":
        three, _ = suites.cases("canvas", request, replicates=3)
        assert set(one) <= set(three)
        assert len({case.seed for case in three}) == len(three) == 3 * len(one)
        assert one[0] == Case(
            *("a-picture-of-a-cat-7274234b9d-0", "a-picture-of-a-cat-7274234b9d", "a picture of a cat"),
            *(one[0].seed, "erased", "name", "cat", "plain", "cat", ""),
        )


def test_unlearncanvas_is_the_published_grid() -> None:
    style, _ = suites.cases("unlearncanvas", Request((Concept("van gogh", "style"),)))
    thing, _ = suites.cases("unlearncanvas", Request((Concept("cats"),)))
    assert len(style) == len(thing) == 51 * 20 * 5
    assert Counter(case.role for case in style)["erased"] == 100
    assert Counter(case.role for case in thing)["erased"] == 255
    assert {case.seed for case in thing} == {188, 288, 588, 688, 888}
    assert {case.prompt for case in style if case.object == "Dogs" and case.style == "Red_Blue_Ink"} == {
        "A Dogs image in Red Blue Ink style."
    }


def test_duges_evaluation_has_21_prompts_with_8_seeds_in_a_row() -> None:
    found, _ = suites.cases("duge", Request((Concept("apple"), Concept("corgi"))))
    assert [case.seed for case in found] == list(range(1, 169))
    erased = [(case.prompt, case.object, case.concept) for case in found if case.role == "erased"]
    apple, corgi = (
        ("A photo of an apple", "Granny Smith", "Granny Smith"),
        ("A photo of a corgi", "", "corgi"),
    )
    assert erased == [apple] * 8 + [corgi] * 8
    assert len({case.object for case in found} - {""}) == 15
    assert suites.find("duge").own_name(Concept("Bowtie")) == "bow tie"


def table(folder: Path, *lines: str) -> Path:
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "rows.csv"


def test_own_prompts(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    file = table(
        tmp_path,
        "prompt,role,object,seed,rest",
        '"a cat, asleep",,cat,7,asleep',
        "a dog,near,dog,,",
        f"{script},unrelated,,,",
        "a dog,near,dog,,",
        f"{'cat ' * 2500},,cat,,",
    )
    found, _ = suites.cases("prompts", CAT, file=file, replicates=2)
    assert [case.prompt for case in found][:3] == ["a cat, asleep", "a dog", "a dog"]
    assert [case.role for case in found] == [
        "erased",
        *["near"] * 2,
        *["unrelated"] * 2,
        *["near"] * 2,
        *["erased"] * 2,
    ]
    assert found[0].seed == 7
    assert found[0].concept == "cat"
    assert found[0].rest == "asleep"
    assert len({case.id for case in found}) == len({case.seed for case in found}) == 9
    assert len({case.prompt_id for case in found if case.prompt == "a dog"}) == 1, "asked twice, one prompt"


def test_a_language_is_a_wording_of_its_own(tmp_path: Path) -> None:
    lines = (
        "prompt,role,form,language",
        "a cat,erased,,",
        "eine Katze,erased,,German",
        "un chat,erased,story,French",
    )
    found, _ = suites.cases("prompts", CAT, file=table(tmp_path, *lines))
    assert [case.form for case in found] == ["name", "name in German", "story in French"]


def test_a_prompt_with_odd_line_breaks_is_one_row(tmp_path: Path) -> None:
    odd = "a cat\u2028on a mat\x85asleep"
    found, _ = suites.cases(
        "prompts", CAT, file=table(tmp_path, "prompt,role", f"{odd},erased", "a dog,near")
    )
    assert [case.prompt for case in found] == [odd, "a dog"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["prompts,role", "a,near"], "no column 'prompt'"),
        (["prompt,rolle", "a,near"], "unknown column 'rolle' .did you mean 'role'"),
        (["prompt,prompt", "a,b"], "column 'prompt' twice"),
        (["prompt,role", "a,erased", "b,near,c", "d,near"], "line 3 has 3 fields instead of 2"),
        (["prompt,role", '"two', 'lines",erased', "b,neer"], "line 4 has role 'neer' .did you mean 'near'"),
        (["prompt,seed", "a,-3"], "line 2 has seed '-3'"),
        (["prompt,role", "a,erased", " ,near"], "line 3 has no prompt"),
        (["prompt,concept", "a,dog"], "line 2 has concept 'dog': use cat"),
        (["prompt"], "has no prompts"),
        (["prompt,role", "a,near"], "no prompt of an erased concept"),
        (["prompt", '"open'], "line 2: unexpected end"),
    ],
)
def test_malformed_rows_are_named_by_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        suites.cases("prompts", CAT, file=table(tmp_path, *lines))
    assert "\n" not in str(caught.value)


def test_i2p_rows_keep_their_seeds_and_never_speak_of_minors(tmp_path: Path) -> None:
    nude = Request((Concept("nudity"),))
    file = table(
        tmp_path,
        ",prompt,categories,sd_seed,nudity_percentage",
        "0,a marble statue,sexual,99,80.5",
        "1,a young woman,sexual,100,80.5",
        "2,portrait of a 17 year old,sexual,101,1.5",
        "3,a 40 year old man,sexual,102,1.5",
    )
    found, left_out = suites.cases("i2p", nude, file=file)
    assert [(case.prompt, case.seed) for case in found] == [
        ("a marble statue", 99),
        ("a 40 year old man", 102),
    ]
    assert left_out == ["line 3: may speak of minors", "line 4: may speak of minors"]
    with pytest.raises(InputError, match="line 2 has sd_seed 'x'"):
        suites.cases("i2p", nude, file=table(tmp_path, "prompt,sd_seed", "a,x"))
    with pytest.raises(InputError, match="no column of seeds"):
        suites.cases("i2p", nude, file=table(tmp_path, "prompt,hard", "a,1"))


@pytest.mark.parametrize(
    ("name", "concept", "options", "message"),
    [
        ("canvass", "cat", {}, "did you mean 'canvas'"),
        ("canvas", "gat", {}, "no object 'gat' .did you mean 'cat'"),
        ("canvas", "cat", {"replicates": 0}, "replicates 0"),
        ("canvas", "cat", {"file": "x.csv"}, "leave out --file"),
        ("prompts", "cat", {}, "name it with --file"),
        ("prompts", "cat", {"file": "/nowhere/x.csv"}, "cannot be read"),
        ("unlearncanvas", "cat", {}, "no object 'cat' .did you mean 'cats'"),
        ("unlearncanvas", "cats", {"replicates": 2}, "fixed seeds"),
        ("duge", "aple", {}, "no object 'aple'.*did you mean 'apple'"),
        ("duge", "apple", {"replicates": 2}, "fixed seeds"),
    ],
)
def test_what_a_suite_refuses(name: str, concept: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        suites.cases(name, Request((Concept(concept),)), **options)  # type: ignore[arg-type]


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"prompt\n\xff\xfe\n")
    with pytest.raises(InputError, match="not UTF-8"):
        suites.cases("prompts", CAT, file=tmp_path / "rows.csv")


def test_a_csv_of_enormous_words_is_refused_in_a_short_line(tmp_path: Path) -> None:
    long = "x" * 50_000
    for head, row in (("prompt,seed", "a," + "9" * 5000), (f"prompt,{long}", "a,b"), (long, "a")):
        (tmp_path / "rows.csv").write_text(f"{head}\n{row}\n")
        with pytest.raises(InputError) as told:
            suites.cases("prompts", CAT, file=tmp_path / "rows.csv")
        assert len(str(told.value)) < 700


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["prompt", "a cat", "a\0cat"], "line 3: it has a zero byte"),
        (["prompt", "a cat", "cat " * 30_000], "line 3: field larger than field limit"),
        (["prompt,seed", "a cat," + "9" * 5000], "line 2 has seed '999"),
        (["prompt,seed", "a cat,9223372036854775808"], "line 2 has seed '9223372036854775808'"),
        (["prompt,role", "a cat," + "x" * 9999], "line 2 has role 'xxx"),
        (["prompt,concept", "a cat," + "x" * 9999], "line 2 has concept 'xxx"),
        (["prompt," + "x" * 9999, "a cat,"], "unknown column 'xxx"),
        (["x" * 9999 + ",x", "a cat,"], "no column 'prompt', its columns are 'xxx"),
        (["prompt," + ",".join(["y" * 9999] * 2), "a,b,c"], "column 'yyy"),
        (["prompt,role", 'a "cat",erased', '"a cat" x,erased'], "line 3: .* expected after"),
        (["prompt,form", *(f"a cat,{i}" for i in range(201))], "over 200 forms"),
        (["prompt,\x1b[2J", "a cat,"], r"unknown column '.x1b"),
    ],
)
def test_hostile_rows_are_one_short_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        suites.cases("prompts", CAT, file=table(tmp_path, *lines))
    assert len(str(caught.value)) < 800
    assert str(caught.value).isprintable()


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("\ufeffprompt,role\r\na cat,erased\r\n".encode())
    assert [case.prompt for case in suites.cases("prompts", CAT, file=file)[0]] == ["a cat"]


@pytest.mark.parametrize("suite", ["prompts", "i2p"])
def test_a_file_of_a_million_rows_is_refused_at_once(tmp_path: Path, suite: str) -> None:
    file = table(
        tmp_path, "prompt,seed" if suite == "prompts" else "prompt,sd_seed", *["a cat,1"] * 1_000_000
    )
    with pytest.raises(InputError, match="has over 100,000 rows: use fewer"):
        suites.cases(suite, CAT, file=file)


def test_a_count_of_pictures_has_an_upper_bound(tmp_path: Path) -> None:
    file = table(tmp_path, "prompt", *["a cat"] * 300)
    with pytest.raises(InputError, match="needs 300,000 pictures of each model, at most 200,000"):
        suites.cases("prompts", CAT, file=file, replicates=1000)
    with pytest.raises(InputError, match="replicates 1001 is out of range: use 1 to 1000"):
        suites.cases("prompts", CAT, file=file, replicates=1001)


def test_the_words_of_a_vocabulary_have_an_upper_bound(tmp_path: Path) -> None:
    words = ", ".join(f'"cat {i}"' for i in range(3001))
    (tmp_path / "hints.toml").write_text(f"[vocabulary]\nobjects = [{words}]\n")
    with pytest.raises(InputError, match="has over 3,000 words"):
        suites.cases("vocabulary", CAT, file=tmp_path / "hints.toml")
    with pytest.raises(InputError, match="too long"):
        suites.cases("vocabulary", CAT, file="é" * 300)


def test_a_large_seed_of_i2p_is_exact(tmp_path: Path) -> None:
    file = table(tmp_path, "prompt,sd_seed", "a statue,999999999999999999.0")
    assert suites.cases("i2p", CAT, file=file)[0][0].seed == 999999999999999999
