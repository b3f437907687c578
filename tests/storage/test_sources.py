"""Pictures that clients send are read with limits and kept without the rest of their files."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sfumato.core.errors import InvalidRequest, NotFound
from sfumato.storage import sources
from sfumato.storage.objects import ObjectStore
from sfumato.storage.sources import keep, name_of, read_source


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


RED = Image.new("RGB", (6, 4), "red")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "gif"])
def test_pictures_of_every_known_format_become_png(kind: str) -> None:
    image = decoded(read_source(encoded(RED, kind), field="mask"))
    assert (image.format, image.size) == ("PNG", (6, 4))
    assert np.abs(np.asarray(image.convert("RGB"), dtype=int) - np.asarray(RED, dtype=int)).max() < 8


def test_transparency_is_kept() -> None:
    image = decoded(read_source(encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 4))), field="mask"))
    assert image.getpixel((0, 0)) == (1, 2, 3, 4)


def test_a_palette_with_transparency_becomes_colours_with_transparency() -> None:
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([255, 0, 0])
    image = decoded(read_source(encoded(palette, transparency=b"\x10"), field="mask"))
    assert image.getpixel((0, 0)) == (255, 0, 0, 16)


def test_a_picture_is_turned_upright_and_its_metadata_is_left_behind() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    image = decoded(read_source(encoded(RED, "jpeg", exif=exif), field="mask"))
    assert image.size == (4, 6)
    assert not image.getexif()


def test_texts_of_a_png_are_left_behind() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "secret")
    assert b"secret" not in read_source(encoded(RED, pnginfo=text), field="mask")


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", encoded(RED)[:45], b"%!PS-Adobe-3.0 EPSF"]
)
def test_what_is_no_picture_is_refused_by_the_name_of_its_field(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Invalid encoded image") as caught:
        read_source(data, field="mask")
    assert caught.value.field == "mask"


def test_pictures_with_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_PIXELS", 23)
    with pytest.raises(InvalidRequest, match="more than 23 pixels"):
        read_source(encoded(RED), field="init_images")


async def test_stored_pictures_are_found_under_their_names(tmp_path: object) -> None:
    objects = ObjectStore.open(f"file://{tmp_path}")
    png = read_source(encoded(RED), field="mask")
    await keep(objects, [png, png])
    assert await objects.get(name_of(png)) == png
    with pytest.raises(NotFound):
        await objects.get(name_of(b"another"))
