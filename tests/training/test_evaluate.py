"""The evaluation measures what pictures show, and asks for what the model was taught."""

from __future__ import annotations

import numpy as np
import pytest

from training import prompts
from training.colours import BACKGROUNDS, PALETTE, rgb
from training.evaluate import Figure, Shown, share, table
from training.measures import has_background, has_subject_colour, shows_both
from training.prompts import Prompt
from training.recognition import Judge, Picture
from training.things import BY_NAME


def square_picture(colour: str, background: str) -> Picture:
    """Return a square of a named colour on a named background."""
    picture = np.empty((256, 256, 3), dtype=np.uint8)
    picture[:] = rgb(BACKGROUNDS[background]) * 255
    picture[64:192, 64:192] = rgb(PALETTE[colour]) * 255
    return picture


class SideJudge(Judge):
    """A judge that sees one thing on either side."""

    def __init__(self, one: str, other: str) -> None:
        self._seen = [[one], [other]]

    def best_of_sides(self, picture: Picture, *, is_stacked: bool, count: int = 5) -> list[list[str]]:
        """Return what was said at the start."""
        return self._seen


@pytest.mark.parametrize("colour", BACKGROUNDS)
def test_a_background_is_seen_as_its_own_colour_only(colour: str) -> None:
    picture = square_picture("gray" if colour == "green" else "green", colour)
    assert [name for name in BACKGROUNDS if has_background(picture, name)] == [colour]


@pytest.mark.parametrize("colour", [colour for colour in PALETTE if colour != "white"])
def test_a_subject_is_seen_in_its_own_colour_only(colour: str) -> None:
    picture = square_picture(colour, "white")
    assert [name for name in PALETTE if has_subject_colour(picture, name)] == [colour]


def test_a_picture_without_a_subject_has_no_subject_colour() -> None:
    assert not has_subject_colour(np.full((256, 256, 3), 255, dtype=np.uint8), "red")


@pytest.mark.parametrize(
    ("one", "other", "is_shown"), [("cat", "tree", True), ("tree", "cat", True), ("cat", "cat", False)]
)
def test_a_pair_is_shown_when_each_side_holds_one_of_it(one: str, other: str, is_shown: bool) -> None:
    picture = square_picture("red", "white")
    assert shows_both(picture, ("cat", "tree"), SideJudge(one, other), is_stacked=False) is is_shown


def test_every_prompt_names_what_it_asks_for() -> None:
    asked = [*prompts.of_things(20), *prompts.of_backgrounds(24, 20), *prompts.of_colours(22, 20), *prompts.of_pairs(8)]
    for prompt in asked:
        assert all(thing in prompt.caption for thing in prompt.things)
        assert prompt.colour is None or prompt.colour in prompt.caption
        assert prompt.background == "white" or f"{prompt.background} background" in prompt.caption


def test_every_pair_is_of_two_known_things() -> None:
    assert all(first in BY_NAME and second in BY_NAME and first != second for first, _, second in prompts.PAIRS)


def test_a_share_lists_the_prompts_it_missed() -> None:
    blank = np.zeros((8, 8, 3), dtype=np.uint8)
    drawn = [Shown(prompt=Prompt(caption=name, things=(name,)), picture=blank) for name in ("cat", "dog")]
    figure = share("named", lambda shown: shown.prompt.things == ("cat",), drawn, drawn[:1], aim=60)
    assert (figure.value, figure.ceiling, figure.missed, figure.is_met) == (50, 100, ("dog",), False)


def test_fewer_seconds_than_the_aim_meet_it() -> None:
    assert Figure(label="a picture", value=1.5, unit="s", aim=2).is_met


def test_the_table_has_a_line_a_figure() -> None:
    lines = table([Figure(label="things", value=7, aim=60, ceiling=99.54, pictures=100)]).splitlines()
    assert lines[2] == "| things (100) | 7 % | 99.5 % | 60 % | no |"
