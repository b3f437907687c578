"""Captions say what the composed picture shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resvg_py")

from training.colours import BACKGROUNDS, natural_colour, recolour, rgb
from training.scenes import Composer
from training.sprites import SIDE, SpriteStore, render
from training.things import THINGS, article, plural

DISC = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><circle cx="5" cy="5" r="4" fill="#d02020"/></svg>'


@pytest.fixture
def composer(tmp_path: Path) -> Composer:
    """A composer whose every thing is a red disc, in every style."""
    disc = render(DISC)
    np.save(tmp_path / "sprites.npy", disc[None])
    entries = [
        f'{{"row": 0, "thing": "{thing.name}", "style": "{style}", "colour": null, "natural": "red", "aspect": 1.0}}'
        for thing in THINGS
        for style in ("3d", "flat", "sticker")
    ]
    (tmp_path / "sprites.json").write_text(f"[{', '.join(entries)}]")
    return Composer(SpriteStore(tmp_path), seed=3)


def test_an_icon_is_rendered_to_fill_its_square() -> None:
    disc = render(DISC)
    assert disc.shape == (SIDE, SIDE, 4)
    assert disc[SIDE // 2, 2, 3] > 200


def test_a_recoloured_picture_has_the_named_colour() -> None:
    assert natural_colour(render(DISC)) == "red"
    assert natural_colour(recolour(render(DISC), "blue")) == "blue"


def test_the_corner_of_a_scene_has_the_background_of_its_caption(composer: Composer) -> None:
    for _ in range(40):
        scene = composer.compose()
        np.testing.assert_allclose(scene.picture[0, 0], rgb(BACKGROUNDS[scene.background]) * 255, atol=1)
        assert scene.background == "white" or scene.background in scene.caption


def test_a_scene_has_the_size_asked_for(composer: Composer) -> None:
    assert composer.compose(384, 256).picture.shape == (256, 384, 3)


def test_one_seed_makes_the_same_scenes(composer: Composer) -> None:
    again = Composer(composer.store, seed=3)
    assert [composer.compose().caption for _ in range(5)] == [again.compose().caption for _ in range(5)]


@pytest.mark.parametrize(("noun", "many"), [("bus", "buses"), ("cherry", "cherries"), ("leaf", "leaves")])
def test_plurals(noun: str, many: str) -> None:
    assert plural(noun) == many


@pytest.mark.parametrize(("noun", "one"), [("owl", "an owl"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella")])
def test_articles(noun: str, one: str) -> None:
    assert article(noun) == one
