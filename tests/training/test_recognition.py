"""The subject of a picture is cut out alike wherever it is, and a judge learns to name it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.synthetic import cross, disc, store
from training.judge import NAMES, Renders
from training.recognition import SIDE, Classifier, Judge, Picture, border, cut_out, sides

ORANGE = (240, 140, 30)


def disc_picture(x: int, y: int, radius: int, background: tuple[int, int, int] = (255, 255, 255)) -> Picture:
    """Return an orange disc on a plain background, 256 x 256."""
    rows, columns = np.mgrid[:256, :256]
    inside = np.hypot(columns - x, rows - y) < radius
    return np.where(inside[..., None], ORANGE, background).astype(np.uint8)


def cut(picture: Picture) -> Picture:
    """Cut out the subject of a picture that has one."""
    subject = cut_out(picture, border(picture))
    assert subject is not None
    return subject


def judge_of_chance() -> Judge:
    """Return a judge that has learnt nothing."""
    torch.manual_seed(0)
    return Judge(Classifier(len(NAMES)), NAMES)


def test_a_subject_is_cut_out_alike_whatever_its_size_and_place() -> None:
    large, small = cut(disc_picture(128, 128, 100)), cut(disc_picture(60, 190, 45))
    assert large.shape == (SIDE, SIDE, 3)
    assert np.abs(large.astype(int) - small).mean() < 6


def test_a_subject_at_the_edge_is_framed_in_the_background() -> None:
    subject = cut(disc_picture(100, 20, 60, background=(20, 60, 200)))
    np.testing.assert_array_equal(subject[0, 0], (20, 60, 200))
    np.testing.assert_array_equal(subject[SIDE // 2, SIDE // 2], ORANGE)


def test_specks_do_not_widen_what_is_cut_out() -> None:
    clean, specked = disc_picture(128, 128, 60), disc_picture(128, 128, 60)
    specked[20:24, 20:24] = 0
    assert np.abs(cut(clean).astype(int) - cut(specked)).mean() < 3


def test_an_empty_picture_shows_nothing() -> None:
    assert judge_of_chance().best(np.full((256, 256, 3), 90, dtype=np.uint8)) == []


def test_a_picture_of_two_things_above_each_other_is_cut_across() -> None:
    picture = disc_picture(128, 64, 50)
    upper, lower = sides(picture, is_stacked=True)
    assert (upper.min(), lower.min()) == (30, 255)


def test_a_picture_of_two_things_beside_each_other_is_cut_down() -> None:
    picture = disc_picture(64, 128, 50)
    left, right = sides(picture, is_stacked=False)
    assert (left.min(), right.min()) == (30, 255)


def test_a_side_without_a_thing_is_named_nothing() -> None:
    there, missing = judge_of_chance().best_of_sides(disc_picture(64, 128, 50), is_stacked=False)
    assert (len(there), missing) == (5, [])


def test_renders_are_in_range_and_named_by_their_sprite(tmp_path: Path) -> None:
    sprites = store(tmp_path, {"apple": disc(ORANGE), "star": cross(ORANGE)})
    renders, things = next(iter(Renders(sprites, seed=0, batch_size=16)))
    assert renders.shape == (16, 3, SIDE, SIDE)
    assert float(renders.abs().max()) <= 1
    assert {NAMES[thing] for thing in things.tolist()} == {"apple", "star"}


def test_one_seed_makes_the_same_renders(tmp_path: Path) -> None:
    sprites = store(tmp_path, {"apple": disc(ORANGE)})
    first, again = (next(iter(Renders(sprites, seed=4, batch_size=8)))[0] for _ in range(2))
    torch.testing.assert_close(first, again)


def test_a_few_steps_on_renders_tell_a_disc_from_a_cross(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Classifier(len(NAMES))
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    batches = iter(Renders(store(tmp_path, {"apple": disc(ORANGE), "star": cross(ORANGE)}), seed=0, batch_size=32))
    for _ in range(20):
        renders, things = next(batches)
        optimiser.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(network(renders), things))
        optimiser.step()
    assert Judge(network, NAMES).best(disc_picture(90, 150, 70), count=1) == ["apple"]


@pytest.mark.parametrize("colour", [(255, 255, 255), (16, 16, 18), (36, 112, 216)])
def test_the_border_of_a_picture_is_its_background(colour: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(border(disc_picture(128, 128, 90, background=colour)) * 255, colour, atol=0.5)
