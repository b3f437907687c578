"""Masks and resizing in pixels."""

import numpy as np
import pytest
from PIL import Image

from sfumato.core.errors import InvalidRequest
from sfumato.core.passes import ResizeMode, hires_size
from sfumato.engine.masks import blurred, masked_region, prepared, resized, surroundings


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def stripes(width: int, height: int) -> Image.Image:
    rows = np.repeat((np.arange(height) * 255 // height)[:, None, None], width, axis=1)
    return Image.fromarray(np.repeat(rows, 3, axis=2).astype(np.uint8))


def test_blurring_spreads_a_point_as_a_gaussian_of_that_deviation() -> None:
    point = Image.new("F", (41, 41))
    values = np.zeros((41, 41), dtype=np.uint8)
    values[20, 20] = 255
    wide = np.asarray(blurred(Image.fromarray(values), 1, 0), dtype=float)[20]
    assert point.size == (41, 41)
    offsets = np.arange(41) - 20
    assert (wide * offsets**2).sum() / wide.sum() == pytest.approx(1.0, rel=0.15)


def test_blurring_an_even_mask_changes_nothing() -> None:
    full = Image.new("L", (30, 20), 255)
    assert blurred(full, 7, 3).tobytes() == full.tobytes()


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (100, 100)])
@pytest.mark.parametrize("mode", list(ResizeMode))
def test_resizing_gives_the_size_asked_for(size: tuple[int, int], mode: ResizeMode) -> None:
    assert resized(stripes(50, 70), size, mode).size == size


def test_filling_stretches_the_edges_and_keeps_the_middle() -> None:
    wide = np.asarray(resized(stripes(64, 64), (128, 64), ResizeMode.FILL))
    assert np.array_equal(wide[:, 32:96], np.asarray(stripes(64, 64)))
    assert np.array_equal(wide[:, 0], wide[:, 32])


def test_cropping_keeps_proportions() -> None:
    cropped = np.asarray(resized(stripes(64, 128), (64, 64), ResizeMode.CROP))
    assert np.array_equal(cropped, np.asarray(stripes(64, 128))[32:96])


def test_the_masked_region_is_padded_and_grown_to_the_proportions_asked_for() -> None:
    assert masked_region(box_mask((200, 200), (90, 90, 110, 100)), 5, (64, 64)) == (85, 80, 115, 110)


def test_the_masked_region_stays_within_the_picture() -> None:
    left, top, right, bottom = masked_region(box_mask((200, 100), (0, 90, 40, 100)), 16, (64, 64)) or (0, 0, 0, 0)
    assert (left, bottom) == (0, 100)
    assert right - left == bottom - top


def test_an_empty_mask_has_no_region() -> None:
    assert masked_region(Image.new("L", (8, 8)), 4, (8, 8)) is None


def test_what_a_mask_hides_is_filled_from_what_is_round_it() -> None:
    picture = Image.new("RGB", (64, 64), (10, 200, 30))
    picture.paste((255, 0, 255), (20, 20, 44, 44))
    filled = np.asarray(surroundings(picture, box_mask((64, 64), (18, 18, 46, 46))))
    assert np.abs(filled.astype(int) - (10, 200, 30)).max() < 6


def test_a_mask_of_other_proportions_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="proportions differ"):
        prepared(stripes(64, 64), (64, 64), ResizeMode.STRETCH, box_mask((64, 32), (0, 0, 9, 9)))


def test_a_mask_of_another_size_is_brought_to_the_pictures() -> None:
    ready = prepared(stripes(64, 64), (64, 64), ResizeMode.STRETCH, box_mask((32, 32), (0, 0, 16, 32)))
    assert ready.mask is not None
    assert ready.mask.size == (64, 64)


@pytest.mark.parametrize(
    ("asked", "enlarged", "cropped"),
    [
        ({"scale": 2.0}, (1024, 768), (1024, 768)),
        ({"scale": 1.55}, (793, 595), (793, 595)),
        ({"resize_x": 1000}, (1000, 750), (1000, 750)),
        ({"resize_y": 768}, (1024, 768), (1024, 768)),
        ({"resize_x": 1000, "resize_y": 1000}, (1333, 1000), (1000, 1000)),
        ({"resize_x": 1000, "resize_y": 500}, (1000, 750), (1000, 500)),
    ],
)
def test_the_second_pass_has_the_size_upstream_finds(
    asked: dict[str, float], enlarged: tuple[int, int], cropped: tuple[int, int]
) -> None:
    wanted = {"scale": 2.0, "resize_x": 0, "resize_y": 0} | asked
    assert hires_size(512, 384, **wanted) == (enlarged, cropped)  # type: ignore[arg-type]
