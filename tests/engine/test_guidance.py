"""Guidance: what rows a sampler's ask becomes, and how their answers are put together."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core.requests import GuidanceSkips
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.guidance import Guide, Network, guided
from sfumato.engine.prompt.schedule import Course
from sfumato.engine.sampling.steps import Steps

X = torch.zeros(1, 2, 2)
NETWORK = Network("n", lambda x, sigma, told: x)


def told(value: float) -> Conditioning:
    return Conditioning(torch.full((1, 1), value))


def asking(times: int) -> Steps:
    """A sampler that asks so many times and returns the last answer."""
    answer = X
    for _ in range(times):
        answer = yield X, 1.0
    return answer


def run(guide: Guide, scale: float, times: int = 1, **choices: Any) -> tuple[list[list[float]], Tensor]:
    """Answer every row with its prompt's value; return the values asked for and the end."""
    steps = guided(asking(times), NETWORK, guide, scale, **choices)
    asked: list[list[float]] = []
    try:
        rows = next(steps)
        while isinstance(rows, list):
            asked.append([float(row.conditioning.states) for row in rows])
            rows = steps.send([X + row.conditioning.states for row in rows])
    except StopIteration as stop:
        return asked, stop.value
    raise AssertionError("guidance has no errands")


def composed(parts: Sequence[tuple[float, float]], negative: float) -> Guide:
    positive = tuple((Course.constant(told(value)), weight) for value, weight in parts)
    return Guide(positive=positive, negative=Course.constant(told(negative)))


def test_one_prompt_is_guided_away_from_the_negative_one() -> None:
    asked, denoised = run(Guide.constant(told(3), told(1)), 5.0)
    assert asked == [[3, 1]]
    assert denoised.unique().tolist() == [1 + 5 * (3 - 1)]


@pytest.mark.parametrize(
    ("parts", "scale"), [([(3, 1), (7, 1)], 4.0), ([(3, 0.5), (7, -0.25), (2, 2)], 6.0), ([(3, 0.5), (5, 1)], 1.0)]
)
def test_prompts_are_composed_by_their_weighted_directions(parts: list[tuple[float, float]], scale: float) -> None:
    asked, denoised = run(composed(parts, 1), scale)
    assert asked == [[*(value for value, _ in parts), 1]]
    expected = 1 + sum(weight * scale * (value - 1) for value, weight in parts)
    assert float(denoised.unique()) == pytest.approx(expected)


def test_the_negative_row_is_saved_where_it_has_no_share() -> None:
    asked, denoised = run(Guide.constant(told(3), told(1)), 1.0)
    assert (asked, denoised.unique().tolist()) == ([[3]], [3])
    asked, denoised = run(composed([(4, 0.5), (8, 0.5)], 1), 1.0)
    assert (asked, denoised.unique().tolist()) == ([[4, 8]], [6])


def test_each_call_is_told_what_holds_for_it() -> None:
    changing = Course((1, 3), (told(2), told(5)))
    guide = Guide(positive=((changing, 1.0),), negative=Course((2, 4), (told(0), told(1))))
    asked, _ = run(guide, 3.0, times=5)
    assert asked == [[2, 0], [2, 0], [5, 0], [5, 1], [5, 1]]


def test_a_composition_without_its_negative_row_starts_from_its_first_prompt() -> None:
    skips = GuidanceSkips(until_fraction=1.0)
    asked, denoised = run(composed([(3, 1), (7, 0.5)], 1), 6.0, skips=skips)
    assert (asked, denoised.unique().tolist()) == ([[3, 7]], [3 + 0.5 * (7 - 3)])
