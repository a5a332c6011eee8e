"""Templates filled: the article before the slot follows the word; no other letter of the text changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.data.grammar import forms, pairs, read
from unlearnkit.data.wording import fix_articles, format_prompt, prefix_through


@pytest.mark.parametrize(
    ("template", "word", "text"),
    [
        ("a picture of a {}", "owl", "a picture of an owl"),
        ("a picture of an {}", "cat", "a picture of a cat"),
        ("A {} picture", "art deco", "An art deco picture"),
        ("a {}", "unicorn", "a unicorn"),
        ("a {}", "Eiffel tower", "an Eiffel tower"),
        ("{} tree", "van gogh", "van gogh tree"),
        ("vitamin a, {}", "apple", "vitamin a, apple"),
        ("a {}", "", "a "),
    ],
)
def test_fill(template: str, word: str, text: str) -> None:
    assert format_prompt(template, word) == text


@given(st.text(), st.text(), st.text())
def test_only_the_article_before_the_slot_changes(before: str, word: str, after: str) -> None:
    template = before.replace("{}", "") + "-{}" + after.replace("{}", "")
    assert format_prompt(template, word) == template.replace("{}", word)
    assert format_prompt(template, word).startswith(prefix_through(template, word))


def test_articles() -> None:
    assert fix_articles("a apple and an cat, a european, A owl") == "an apple and a cat, a european, An owl"


@pytest.mark.parametrize("name", ["Die Frau an der Bar", "Hoi An", "Ford Model A", "A an a"])
def test_a_users_own_name_stays_as_it_is(name: str) -> None:
    words = {"object": [name], "style": [name]}
    for kind in ("object", "style"):
        told = pairs(read("plain"), kind, [name], ["an owl"], words, count=40, seed=0, share=0.5)
        assert all(name in prompt for prompt, _ in told)
        assert not any("\x00" in prompt or "\x01" in prompt for pair in told for prompt in pair)
        others = forms(read("plain"), kind, {**words, kind: ["owl"]}, count=40, seed=0)
        assert all("{}" in form for form in others)
        assert any(name in form for form in others)
