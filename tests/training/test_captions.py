"""A composed scene of two things shows them where its caption says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.synthetic import disc, store
from training.scenes import Composer, Scene
from training.things import BY_NAME

RED, BLUE = (224, 36, 48), (40, 120, 224)


def scenes(folder: Path, kind: str, count: int) -> list[Scene]:
    """Compose scenes of red apples and blue balloons."""
    things = (BY_NAME["pizza"], BY_NAME["penguin"])  # never recoloured
    sprites = store(folder, {"pizza": disc(RED), "penguin": disc(BLUE)})
    composer = Composer(sprites, seed=11, things=things)
    return [composer.compose(kind=kind) for _ in range(count)]


def centre(scene: Scene, thing: str) -> tuple[float, float]:
    """Return the middle (x, y) of a thing's pixels."""
    colour = RED if thing == "pizza" else BLUE
    rows, columns = np.nonzero(np.abs(scene.picture.astype(int) - colour).max(axis=-1) < 8)
    return float(columns.mean()), float(rows.mean())


def test_the_first_of_a_pair_is_on_the_side_its_caption_says(tmp_path: Path) -> None:
    checked = set()
    for scene in scenes(tmp_path, "pair", 120):
        (x, y), (other_x, other_y) = (centre(scene, thing) for thing in scene.things)
        claims = {
            " to the left of ": x < other_x,
            " to the right of ": x > other_x,
            " above ": y < other_y,
            " on top of ": y < other_y,
            " below ": y > other_y,
        }
        said = [words for words in claims if words in scene.caption]
        assert all(claims[words] for words in said), scene.caption
        checked.update(said)
    assert len(checked) == 5


def test_as_many_are_shown_as_the_caption_counts(tmp_path: Path) -> None:
    single = scenes(tmp_path, "single", 1)[0]
    assert single.kind == "single"
    for scene in scenes(tmp_path, "count", 30):
        number = next(n for n, word in {2: "two", 3: "three", 4: "four"}.items() if word in scene.caption)
        colour = RED if scene.things == ("pizza",) else BLUE
        area = int((np.abs(scene.picture.astype(int) - colour).max(axis=-1) < 8).sum())
        side = scene.picture.shape[0]
        one = np.pi / 4 * (side * np.array([0.40, 0.45])) ** 2
        assert 0.9 * number * one[0] < area < 1.1 * number * one[1]
