"""Prompts that change while a picture is made: `[from:to:when]` and `[a|b]`. Pure text work.

docs/sdapi.md, "Prompt language". A prompt becomes a course: which text holds for which of the network's calls.
Brackets that are neither stay in the text, for the grammar of attention to read.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Thing = TypeVar("Thing")
Other = TypeVar("Other")

_TOKEN = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]+|\\", re.DOTALL)
_NUMBER = re.compile(r"\s*([+-]?(?:\d{1,9}\.?\d{0,9}|\.\d{1,9}))\s*")
_DEEPEST = 100
"""Brackets nested deeper than this are text: nobody means them."""


@dataclass(frozen=True)
class Course(Generic[Thing]):
    """What holds for which calls of the network, counted from 0: `things[i]` up to and including call `ends[i]`.

    The last one holds for all later calls as well.
    """

    ends: tuple[int, ...]
    things: tuple[Thing, ...]

    @classmethod
    def constant(cls, thing: Thing) -> "Course[Thing]":
        """Return a course that never changes."""
        return cls((0,), (thing,))

    def at(self, call: int) -> Thing:
        """Return what holds for a call."""
        return self.things[min(bisect_left(self.ends, call), len(self.things) - 1)]

    def map(self, change: Callable[[Thing], Other]) -> "Course[Other]":
        """Return the course of what `change` makes of each thing."""
        return Course(self.ends, tuple(change(thing) for thing in self.things))


@dataclass(frozen=True)
class Calls:
    """How a sampler's run counts its calls of the network.

    `count`: calls the run is planned for. `before`: those of the pass before it, whose timeline a second pass goes on
    with: there fractions count from 1 and whole numbers from `before`.
    """

    count: int
    before: int = 0

    def last_of(self, when: str) -> int:
        """Return the last call at which what stands before `when` holds, by the number as written."""
        if "." in when:
            return min(self.count, int((float(when) - (1.0 if self.before else 0.0)) * self.count))
        return min(self.count, int(when) - self.before)


@dataclass(frozen=True)
class Switch:
    """`[before:after:when]`."""

    before: "Text"
    after: "Text"
    when: str


@dataclass(frozen=True)
class Alternation:
    """`[one|other|...]`: the options take turns, one call each."""

    options: "tuple[Text, ...]"


Text = tuple[str | Switch | Alternation, ...]
"""A prompt or a part of one: words, and what changes among them."""


def course_of(prompt: str, calls: Calls) -> tuple[Course[str], list[str]]:
    """Return the prompt's text for every call, and sentences about brackets that look meant but are read as text.

    A text with end E holds while the call's number, from 0, is at most E: the first text gets one call more.
    """
    text, complaints = parse_schedule(prompt)
    ends = sorted({calls.count, *(end for end in _ends(text, calls) if end >= 1)})
    return Course(tuple(ends), tuple(_at(text, end, calls) for end in ends)), complaints


def parse_schedule(prompt: str) -> tuple[Text, list[str]]:
    """Parse a prompt. Every text parses: what fits no rule is kept as it is, and complained of if it looks meant."""
    frames = [_Frame("", 0)]
    complaints: list[str] = []
    for match in _TOKEN.finditer(prompt):
        token = match[0]
        if token in ("(", "[") and len(frames) <= _DEEPEST:
            frames.append(_Frame(token, match.start()))
        elif token in (")", "]"):
            _close(frames, token, complaints)
        else:
            frames[-1].entries.append(_Mark(token) if token in (":", "|") else token)
    while len(frames) > 1:
        _dissolve(frames, complaints)
    return _joined(frames[0].entries), complaints


@dataclass(frozen=True)
class _Mark:
    """A colon or a bar, which may divide the bracket it stands in."""

    character: str


_Entry = str | Switch | Alternation | _Mark


@dataclass
class _Frame:
    """A bracket that is open: which, where in the prompt, and what has come since."""

    bracket: str
    position: int
    entries: list[_Entry] = field(default_factory=list)

    def marks(self) -> str:
        return "".join(entry.character for entry in self.entries if isinstance(entry, _Mark))


def _close(frames: list[_Frame], bracket: str, complaints: list[str]) -> None:
    """Close the innermost bracket of this kind; those opened inside it and never closed become text."""
    opening = {")": "(", "]": "["}[bracket]
    if all(frame.bracket != opening for frame in frames):
        frames[-1].entries.append(bracket)
        return
    while frames[-1].bracket != opening:
        _dissolve(frames, complaints)
    frame = frames.pop()
    changing = _changing(frame) if opening == "[" else None
    if changing is not None:
        frames[-1].entries.append(changing)
        return
    if opening == "[" and len(frame.marks()) > 1:
        complaints.append(f"The brackets at character {frame.position + 1} of the prompt fit no rule; they are text.")
    frames[-1].entries += [opening, *_joined(frame.entries), bracket]


def _dissolve(frames: list[_Frame], complaints: list[str]) -> None:
    """Make the innermost open bracket a part of the text around it."""
    frame = frames.pop()
    if frame.bracket == "[" and frame.marks():
        complaints.append(f"The '[' at character {frame.position + 1} of the prompt is never closed; it is text.")
    frames[-1].entries += [frame.bracket, *frame.entries]


def _changing(frame: _Frame) -> Switch | Alternation | None:
    """Return what a square bracket says, or None when it holds mere words."""
    marks = frame.marks()
    parts = list(_split(frame.entries))
    if marks and set(marks) == {"|"}:
        return Alternation(tuple(_joined(part) for part in parts))
    if marks not in (":", "::"):
        return None
    when = _NUMBER.fullmatch("".join(entry for entry in parts[-1] if isinstance(entry, str)))
    if when is None or not all(isinstance(entry, str) for entry in parts[-1]):
        return None
    before, after = ([], parts[0]) if marks == ":" else (parts[0], parts[1])
    return Switch(_joined(before), _joined(after), when[1])


def _split(entries: list[_Entry]) -> Iterator[list[_Entry]]:
    part: list[_Entry] = []
    for entry in entries:
        if isinstance(entry, _Mark):
            yield part
            part = []
        else:
            part.append(entry)
    yield part


def _joined(entries: list[_Entry]) -> Text:
    """Return entries as text, marks as their characters and neighbouring words in one."""
    text: list[str | Switch | Alternation] = []
    for entry in entries:
        word = entry.character if isinstance(entry, _Mark) else entry
        if isinstance(word, str) and text and isinstance(text[-1], str):
            text[-1] += word
        else:
            text.append(word)
    return tuple(text)


def _ends(text: Text, calls: Calls) -> Iterator[int]:
    """Yield the last calls of all the texts that a prompt goes through."""
    for part in text:
        if isinstance(part, Switch):
            yield calls.last_of(part.when)
            yield from _ends(part.before, calls)
            yield from _ends(part.after, calls)
        elif isinstance(part, Alternation):
            yield from range(1, calls.count + 1)


def _at(text: Text, end: int, calls: Calls) -> str:
    """Return the words that hold up to call `end`."""
    words = []
    for part in text:
        if isinstance(part, Switch):
            words.append(_at(part.before if end <= calls.last_of(part.when) else part.after, end, calls))
        elif isinstance(part, Alternation):
            words.append(_at(part.options[(end - 1) % len(part.options)], end, calls))
        else:
            words.append(part)
    return "".join(words)
