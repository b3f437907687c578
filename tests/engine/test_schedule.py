"""Prompts that change from call to call, by the examples of their description and by properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.engine.prompt.schedule import Alternation, Calls, Course, Switch, Text, course_of, parse_schedule


def texts(prompt: str, calls: int, before: int = 0, *, count: int | None = None) -> list[str]:
    course, _ = course_of(prompt, Calls(calls, before))
    return [course.at(call) for call in range(count or calls)]


def test_the_first_text_holds_while_the_call_is_at_most_its_end() -> None:
    assert texts("[a:b:0.25]", 20) == ["a"] * 6 + ["b"] * 14


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("x [a:b:3] y", ["x a y"] * 4 + ["x b y"] * 4),
        ("[to:3]", [""] * 4 + ["to"] * 4),
        ("[from::3]", ["from"] * 4 + [""] * 4),
        ("[a:b: 3 ]", ["a"] * 4 + ["b"] * 4),
        ("[a:b:.5]", ["a"] * 5 + ["b"] * 3),
        ("[a:b:1.]", ["a"] * 8),
        ("[a:b:0]", ["b"] * 8),
        ("[a:b:-2]", ["b"] * 8),
        ("[a:b:99]", ["a"] * 8),
        ("[a:[b:c:4]:2]", ["a"] * 3 + ["b"] * 2 + ["c"] * 3),
        ("[(a:1.2):b:3]", ["(a:1.2)"] * 4 + ["b"] * 4),
        ("([a:b:3]:1.2)", ["(a:1.2)"] * 4 + ["(b:1.2)"] * 4),
        (r"[a\:b:c:3]", [r"a\:b"] * 4 + ["c"] * 4),
    ],
)
def test_editing(prompt: str, expected: list[str]) -> None:
    assert texts(prompt, 8) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("[a|b]", ["a", "a", "b", "a", "b", "a"]),
        ("[a|b|c] x", ["a x", "a x", "b x", "c x", "a x", "b x"]),
        ("[a|]", ["a", "a", "", "a", "", "a"]),
        ("[[a|b]:c:3]", ["a", "a", "b", "a", "c", "c"]),
    ],
)
def test_options_take_turns(prompt: str, expected: list[str]) -> None:
    assert texts(prompt, 6) == expected


def test_a_second_pass_goes_on_with_the_timeline() -> None:
    assert texts("[a:b:0.5]", 10, before=20) == ["b"] * 10
    assert texts("[a:b:1.5]", 10, before=20) == ["a"] * 6 + ["b"] * 4
    assert texts("[a:b:23]", 10, before=20) == ["a"] * 4 + ["b"] * 6
    assert texts("[a:b:1.5]", 20) == ["a"] * 20


def test_the_last_text_holds_for_calls_beyond_the_plan() -> None:
    assert texts("[a:b:3]", 4, count=7) == ["a"] * 4 + ["b"] * 3


@pytest.mark.parametrize(
    "prompt",
    ["", "plain", "[x]", "(x:1.3)", "[x:y]", "a:b|c", "[a:b:c]", "[a:b:0.5", "a]:b:3]", r"\[a:b:3\]", "[a:b|c:3]"],
)
def test_what_fits_no_rule_is_kept_as_it_is(prompt: str) -> None:
    assert set(texts(prompt, 5)) == {prompt}


@pytest.mark.parametrize(
    ("prompt", "place"), [("a [b:c:0.5", "character 3"), ("[a:b:c]", "character 1"), ("ab [c:d|e:3]", "character 4")]
)
def test_brackets_that_look_meant_but_fit_no_rule_are_complained_of(prompt: str, place: str) -> None:
    (complaint,) = parse_schedule(prompt)[1]
    assert place in complaint


@pytest.mark.parametrize("prompt", ["[x]", "(a", "[a", "a)", "[x:y]", "[a:b:1] [c|d]"])
def test_ordinary_prompts_are_not_complained_of(prompt: str) -> None:
    assert parse_schedule(prompt)[1] == []


def test_brackets_nested_without_end_are_text() -> None:
    prompt = "[" * 5000 + ":1]" * 5000
    assert parse_schedule(prompt)[0]


@given(st.text(alphabet="ab :|()[]\\.12-\n", max_size=60), st.integers(1, 30))
def test_any_text_has_a_course_to_the_last_call(prompt: str, calls: int) -> None:
    course, _ = course_of(prompt, Calls(calls))
    assert course.ends[-1] == calls
    assert list(course.ends) == sorted(set(course.ends))
    assert len(course.ends) == len(course.things)


@given(st.text(alphabet="ab :|().1\n", max_size=40))
def test_a_prompt_without_square_brackets_never_changes(prompt: str) -> None:
    assert parse_schedule(prompt) == (((prompt,) if prompt else ()), [])


WORDS = st.text(alphabet="ab, ", min_size=1, max_size=4)
WHENS = st.one_of(st.integers(-3, 20).map(str), st.floats(0, 2).map(lambda v: f"{v:.3f}"))


def _trees(inner: st.SearchStrategy[Text]) -> st.SearchStrategy[Text]:
    switches = st.builds(Switch, inner, inner, WHENS)
    alternations = st.lists(inner, min_size=2, max_size=3).map(lambda options: Alternation(tuple(options)))
    return st.lists(st.one_of(WORDS, switches, alternations), max_size=3).map(_without_neighbours)


def _without_neighbours(parts: list[str | Switch | Alternation]) -> Text:
    kept: list[str | Switch | Alternation] = []
    for part in parts:
        if not (isinstance(part, str) and kept and isinstance(kept[-1], str)):
            kept.append(part)
    return tuple(kept)


TREES = st.recursive(WORDS.map(lambda word: (word,)), _trees, max_leaves=6)


def written(text: Text) -> str:
    """Write a tree as a prompt."""
    words = []
    for part in text:
        if isinstance(part, Switch):
            words.append(f"[{written(part.before)}:{written(part.after)}:{part.when}]")
        elif isinstance(part, Alternation):
            words.append(f"[{'|'.join(map(written, part.options))}]")
        else:
            words.append(part)
    return "".join(words)


@given(TREES)
def test_a_written_tree_is_read_back(tree: Text) -> None:
    assert parse_schedule(written(tree)) == (tree, [])


def told(text: Text, call: int, calls: int, ends: set[int]) -> str:
    """Return a call's words straight from the rule: those of the first end that is not before the call."""
    end = min(e for e in ends if e >= call)
    words = ""
    for part in text:
        if isinstance(part, Switch):
            when = int(float(part.when) * calls) if "." in part.when else int(part.when)
            words += told(part.before if end <= min(when, calls) else part.after, call, calls, ends)
        elif isinstance(part, Alternation):
            words += told(part.options[(end - 1) % len(part.options)], call, calls, ends)
        else:
            words += part
    return words


def ends_of(text: Text, calls: int) -> set[int]:
    ends = {calls}
    for part in text:
        if isinstance(part, Switch):
            when = int(float(part.when) * calls) if "." in part.when else int(part.when)
            ends |= {min(when, calls), *ends_of(part.before, calls), *ends_of(part.after, calls)}
        elif isinstance(part, Alternation):
            ends |= set(range(1, calls + 1))
    return {end for end in ends if end >= 1}


@given(TREES, st.integers(1, 25))
def test_every_call_has_the_words_of_its_end(tree: Text, calls: int) -> None:
    ends = ends_of(tree, calls)
    assert texts(written(tree), calls) == [told(tree, call, calls, ends) for call in range(calls)]


def test_a_constant_course_holds_always() -> None:
    assert {Course.constant("x").at(call) for call in (0, 1, 99)} == {"x"}
