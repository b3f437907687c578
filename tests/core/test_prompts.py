"""Comments and tags of the prompt language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import InvalidPrompt
from sfumato.core.prompts import AdapterTag, tags_of, without_comments, without_tags


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", "a cat"),
        ("a cat # sitting", "a cat \n"),
        ("a # one\nb", "a \nb"),
        ("a\n# whole line\nb", "a\nb"),
        ("# first\na", "\na"),
        ("a#b#c\n#d", "a\n\n"),
    ],
)
def test_comments_become_line_breaks(prompt: str, expected: str) -> None:
    assert without_comments(prompt) == expected


@given(st.text())
def test_no_comment_is_left(prompt: str) -> None:
    assert "#" not in without_comments(prompt)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lora:x>", AdapterTag(name="x")),
        ("<lora:x:0.5>", AdapterTag(name="x", text_weight=0.5, denoiser_weight=0.5)),
        ("<lora:x:0.5:-1>", AdapterTag(name="x", text_weight=0.5, denoiser_weight=-1.0)),
        ("<lora:x:1:1:4>", AdapterTag(name="x", rank=4)),
        ("<lora:x:te=0>", AdapterTag(name="x", text_weight=0.0, denoiser_weight=0.0)),
        ("<lora:x:unet=2>", AdapterTag(name="x", denoiser_weight=2.0)),
        ("<lora:x:0.3:dyn=8>", AdapterTag(name="x", text_weight=0.3, denoiser_weight=0.3, rank=8)),
        ("<LyCo: x : 1>", AdapterTag(name="x")),
    ],
)
def test_a_loras_tag_says_how_strongly_it_acts_on_each_network(tag: str, expected: AdapterTag) -> None:
    assert tags_of(f"a {tag} b").adapters == (expected,)
    assert without_tags(f"a {tag}b") == "a b"


def test_tags_keep_their_order_and_others_are_told_by_kind() -> None:
    tags = tags_of("<lora:b:1>x<hypernet:h:0.5><lora:a:1>")
    assert [tag.name for tag in tags.adapters] == ["b", "a"]
    assert tags.others == (("hypernet", "h:0.5"),)


@pytest.mark.parametrize("prompt", ["a < b: c", "<lora>", "<3", "<:x>", "<lora:>"])
def test_what_is_no_tag_is_text(prompt: str) -> None:
    assert without_tags(prompt) == prompt
    assert tags_of(prompt).adapters == ()


@pytest.mark.parametrize("tag", ["<lora:x:strong>", "<lora:x:1:nan>", "<lora:x:1e9>"])
def test_a_weight_that_is_no_number_is_refused_with_the_tag(tag: str) -> None:
    with pytest.raises(InvalidPrompt, match="In <lora:x:"):
        tags_of(tag)


@given(st.text(alphabet="<>lora:x=1. ", max_size=40))
def test_tags_and_words_are_the_whole_prompt(prompt: str) -> None:
    words = without_tags(prompt)
    assert without_tags(words) == words or "<" in words
    assert len(words) <= len(prompt)
