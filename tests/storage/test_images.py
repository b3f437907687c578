"""PNG files: both encoders, read back by Pillow, and the text they carry."""

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sfumato.core.errors import InvalidRequest
from sfumato.storage.images import (
    PngEncoder,
    encode_png,
    encode_with_fpng,
    encode_with_pillow,
    fpng_is_available,
    read_text,
)

needs_fpng = pytest.mark.skipif(not fpng_is_available(), reason="fpng has no wheel here")
both_encoders = pytest.mark.parametrize(
    "encoder", [encode_with_pillow, pytest.param(encode_with_fpng, marks=needs_fpng)], ids=["pillow", "fpng"]
)
TEXTS = {
    "ascii": "a red apple\nSteps: 20",
    "latin-1": "café, naïve",
    "unicode": "雪の山 🏔\nNegative prompt: тень",
    "empty": "",
    "NUL": "a\0b",
}


def gradient(width: int, height: int) -> bytes:
    return bytes((x * 7 + y * 3 + c * 50) % 256 for y in range(height) for x in range(width) for c in range(3))


def open_png(png: bytes) -> PngImagePlugin.PngImageFile:
    image = Image.open(io.BytesIO(png))
    assert isinstance(image, PngImagePlugin.PngImageFile)
    image.load()
    return image


@both_encoders
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 64), (257, 31), (256, 256)])
def test_pillow_reads_the_same_pixels(encoder: PngEncoder, size: tuple[int, int]) -> None:
    for pixels in (gradient(*size), os.urandom(size[0] * size[1] * 3), bytes(size[0] * size[1] * 3)):
        image = open_png(encode_png(pixels, *size, {"parameters": "x"}, encoder=encoder))
        assert (image.mode, image.size, image.tobytes()) == ("RGB", size, pixels)


@both_encoders
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_pillow_reads_the_same_text(encoder: PngEncoder, text: str) -> None:
    png = encode_png(gradient(8, 8), 8, 8, {"parameters": text, "other": "also"}, encoder=encoder)
    assert open_png(png).text == {"parameters": text, "other": "also"}


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_as_it_was(text: str) -> None:
    assert read_text(encode_png(b"\1\2\3", 1, 1, {"parameters": text})) == {"parameters": text}


def test_latin_text_is_a_plain_chunk_and_other_text_an_international_one() -> None:
    """As Pillow writes them, and so as every reader of AUTOMATIC1111's files expects them."""
    assert b"tEXtparameters\0caf\xe9" in encode_png(b"\0\0\0", 1, 1, {"parameters": "café"})
    assert b"iTXtparameters\0\0\0\0\0" + "雪".encode() in encode_png(b"\0\0\0", 1, 1, {"parameters": "雪"})


def test_a_lone_surrogate_does_not_lose_the_picture() -> None:
    assert read_text(encode_png(b"\0\0\0", 1, 1, {"parameters": "a\ud800b"})) == {"parameters": "a?b"}


def test_text_stands_before_the_pixels() -> None:
    png = encode_png(gradient(8, 8), 8, 8, {"parameters": "x"})
    assert png.index(b"IHDR") < png.index(b"tEXt") < png.index(b"IDAT")


@pytest.mark.parametrize(("length", "width", "height"), [(11, 2, 2), (13, 2, 2), (0, 0, 1), (12, -2, -2)])
def test_pixels_that_do_not_fit_the_size_are_refused(length: int, width: int, height: int) -> None:
    """The fast encoder reads past the end of a short buffer, so this check guards the process."""
    with pytest.raises(ValueError, match="are not"):
        encode_png(bytes(length), width, height, {})


@pytest.mark.parametrize("key", ["", "k" * 80, "a\0b", "雪"])
def test_a_key_that_png_does_not_allow_is_refused(key: str) -> None:
    with pytest.raises(ValueError):
        encode_png(b"\0\0\0", 1, 1, {key: "x"})


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"not a picture at all"])
def test_reading_what_is_no_png_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a readable PNG"):
        read_text(data)


def test_reading_a_truncated_png_is_refused() -> None:
    png = encode_png(gradient(64, 64), 64, 64, {"parameters": "x"})
    with pytest.raises(InvalidRequest):
        read_text(png[:-100])
