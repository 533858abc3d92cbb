"""Images through the whole way: a stored file, a child, pixels."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer

from media.load import LocalFile, MediaLoader, RemoteUrl
from tests.media.conftest import MakeLoader
from tests.media.samples import Pixels, image_bytes, picture, png_bomb, png_of_sixteen_bits
from vlmq.errors import ErrorCode, VlmqError


@pytest.fixture
def store(tmp_path: Path) -> "Store":
    return Store(tmp_path)


class Store:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, data: bytes) -> LocalFile:
        path = self._folder / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        return LocalFile(path)


def load(loader: MediaLoader, source: LocalFile | RemoteUrl, max_pixels: int | None = None) -> Pixels:
    return loader.load_image(source, param="messages.0.content.0.url", max_pixels=max_pixels).pixels


def refusal(loader: MediaLoader, source: LocalFile | RemoteUrl) -> VlmqError:
    with pytest.raises(VlmqError) as caught:
        load(loader, source)
    assert caught.value.param == "messages.0.content.0.url"
    assert "/" not in caught.value.message.replace("image/", "").replace("text/", "").replace("application/", "")
    return caught.value


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF"])
def test_a_lossless_image_comes_back_as_it_was(loader: MediaLoader, store: Store, kind: str) -> None:
    pixels = picture(67, 43) // 128 * 255
    data = image_bytes(pixels, kind, **({"lossless": True} if kind == "WEBP" else {}))
    image = loader.load_image(store(data), param="p")
    assert np.array_equal(image.pixels, pixels)
    assert image.pixels.dtype == np.uint8
    assert image.sha256 == hashlib.sha256(data).hexdigest()


def test_a_jpeg_is_what_pillow_makes_of_it(loader: MediaLoader, store: Store) -> None:
    data = image_bytes(picture(640, 480), "JPEG")
    assert np.array_equal(load(loader, store(data)), np.asarray(Image.open(io.BytesIO(data))))


def test_pixels_belong_to_the_caller(loader: MediaLoader, store: Store) -> None:
    source = store(image_bytes(picture(16, 16), "PNG"))
    first = load(loader, source)
    first[:] = 7
    assert np.array_equal(load(loader, source), picture(16, 16))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_upright(loader: MediaLoader, store: Store, orientation: int) -> None:
    upright = picture(48, 32)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image_bytes(np.ascontiguousarray(turned), "PNG", exif=exif)
    assert np.array_equal(load(loader, store(data)), upright)


def test_broken_exif_does_not_spoil_the_picture(loader: MediaLoader, store: Store) -> None:
    data = image_bytes(picture(16, 16), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert np.array_equal(load(loader, store(data)), picture(16, 16))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(loader: MediaLoader, store: Store, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    data = image_bytes(image.convert(mode), "PNG")
    pixels = load(loader, store(data))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[0, 7].tolist() == [255, 255, 255]


def test_half_transparent_red_is_mixed_with_white(loader: MediaLoader, store: Store) -> None:
    data = image_bytes(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG")
    red, green, blue = load(loader, store(data))[0, 0].tolist()
    assert red == 255
    assert green == blue == 127


def test_sixteen_bits_of_grey_are_scaled_not_cut(loader: MediaLoader, store: Store) -> None:
    grey = np.tile(np.arange(0, 65536, 256, dtype=np.uint16), (4, 1))
    pixels = load(loader, store(image_bytes(Image.fromarray(grey), "PNG")))
    assert pixels[0, :, 0].tolist() == list(range(256))


@pytest.mark.parametrize(
    ("samples", "transparent", "shown"),
    [
        ([[0xFFFF, 0x8000, 0x12FF], [0, 0, 0]], (), [[255, 128, 18], [0, 0, 0]]),
        ([[0xFFFF, 0, 0, 0xFFFF], [0xFFFF, 0, 0, 0]], (), [[255, 0, 0], [255, 255, 255]]),
        ([[0x8000, 0xFFFF], [0x8000, 0]], (), [[128, 128, 128], [255, 255, 255]]),
        ([[0x8000], [0x1234]], (0x1234,), [[128, 128, 128], [255, 255, 255]]),
        ([[0xFFFF, 0x8000, 0], [0x1234, 0, 0xFFFF]], (0x1234, 0, 0xFFFF), [[255, 128, 0], [255, 255, 255]]),
    ],
    ids=["RGB", "RGBA", "grey and alpha", "grey with a transparent one", "RGB with a transparent one"],
)
def test_sixteen_bits_of_every_kind_keep_their_colour_and_transparency(
    loader: MediaLoader,
    store: Store,
    samples: list[list[int]],
    transparent: tuple[int, ...],
    shown: list[list[int]],
) -> None:
    pixels = np.array([samples, samples], np.uint16)
    assert load(loader, store(png_of_sixteen_bits(pixels, transparent))).tolist() == [shown, shown]


@pytest.mark.parametrize(("mode", "key"), [("1", None), ("L", None), ("L", 0), ("RGB", (0, 0, 0)), ("P", None)])
def test_few_colours_come_as_they_are_with_the_transparent_one_white(
    loader: MediaLoader, store: Store, mode: str, key: object
) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 4, 8))
    data = image_bytes(image.convert(mode), "PNG", **({} if key is None else {"transparency": key}))
    pixels = load(loader, store(data))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 7].tolist() == ([0, 0, 0] if key is None else [255, 255, 255])


def test_cmyk_becomes_rgb(loader: MediaLoader, store: Store) -> None:
    data = image_bytes(Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK"), "JPEG", quality=100)
    red, green, _ = load(loader, store(data))[0, 0].tolist()
    assert red > 230
    assert green < 40


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(loader: MediaLoader, store: Store, kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("black", "white", "red")]
    data = image_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
    assert load(loader, store(data)).max() < 8


def test_a_gif_of_ten_thousand_frames_costs_one(loader: MediaLoader, store: Store) -> None:
    once = image_bytes(Image.new("L", (64, 64)), "GIF")
    # Behind the global palette, up to the trailer, stands one frame, which may come again and again.
    start = 13 + 3 * 2 ** ((once[10] & 7) + 1)
    data = once[:start] + once[start:-1] * 10_000 + b";"
    assert load(loader, store(data)).shape == (64, 64, 3)


def test_joined_jpeg_frames_are_one_image(loader: MediaLoader, store: Store) -> None:
    data = image_bytes(picture(32, 32), "JPEG") * 5_000
    assert load(loader, store(data)).shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_is_scaled_down_on_request(loader: MediaLoader, store: Store, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = Image.linear_gradient("L").resize((800, 600)).convert("RGB")
    source = store(image_bytes(smooth, kind, exif=exif))
    height, width, _ = load(loader, source, max_pixels=30_000).shape
    assert height * width <= 30_000
    assert height * width > 29_000
    assert height / width == pytest.approx(800 / 600, rel=0.02)
    assert load(loader, source).shape == (800, 600, 3)


def test_a_bomb_is_refused_before_it_is_decoded(loader: MediaLoader, store: Store) -> None:
    data = png_bomb(20_000)
    assert len(data) < 100_000
    error = refusal(loader, store(data))
    assert error.code is ErrorCode.IMAGE_TOO_LARGE
    assert "20000 x 20000" in error.message


def test_an_image_beyond_the_memory_limit_is_too_large(make_loader: MakeLoader, store: Store) -> None:
    loader = make_loader(decode_memory_bytes=400 * 2**20, max_image_pixels=10**9)
    assert refusal(loader, store(png_bomb(12_000))).code is ErrorCode.IMAGE_TOO_LARGE
    assert load(loader, store(image_bytes(picture(64, 64), "PNG"))).shape == (64, 64, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.9, 0.3])
def test_a_truncated_image_is_refused(loader: MediaLoader, store: Store, kind: str, share: float) -> None:
    data = image_bytes(picture(200, 200), kind)
    assert refusal(loader, store(data[: int(len(data) * share)])).code is ErrorCode.IMAGE_INVALID


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_an_image_head_with_garbage_behind_is_refused(loader: MediaLoader, store: Store, kind: str) -> None:
    garbage = np.random.default_rng(1).bytes(4000)
    data = image_bytes(picture(64, 64), kind)[:30] + garbage
    # A GIF's blocks are looked at before anything is decoded: scripts pose as one.
    posing = kind == "GIF"
    expected = {ErrorCode.UNSUPPORTED_MEDIA_TYPE} if posing else {ErrorCode.IMAGE_INVALID, ErrorCode.IMAGE_TOO_LARGE}
    assert refusal(loader, store(data)).code in expected


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (2, 500)])
def test_an_image_that_is_hardly_there_is_refused(loader: MediaLoader, store: Store, size: tuple[int, int]) -> None:
    error = refusal(loader, store(image_bytes(Image.new("RGB", size), "PNG")))
    assert error.code is ErrorCode.IMAGE_INVALID
    assert f"{size[0]} x {size[1]}" in error.message


def test_an_empty_image_is_refused(loader: MediaLoader, store: Store) -> None:
    assert refusal(loader, store(b"")).code is ErrorCode.IMAGE_INVALID


@pytest.mark.parametrize("kind", ["TIFF", "EPS", "PDF", "PPM", "ICO"])
def test_other_formats_are_refused_whatever_their_name(loader: MediaLoader, store: Store, kind: str) -> None:
    data = image_bytes(picture(16, 16), kind)
    assert refusal(loader, store(data)).code is ErrorCode.UNSUPPORTED_MEDIA_TYPE


def test_a_file_over_the_byte_limit_is_refused(make_loader: MakeLoader, store: Store) -> None:
    error = refusal(make_loader(max_image_bytes=100), store(image_bytes(picture(64, 64), "PNG")))
    assert error.code is ErrorCode.MEDIA_TOO_LARGE


def test_a_file_that_is_gone_is_not_found(loader: MediaLoader, tmp_path: Path) -> None:
    assert refusal(loader, LocalFile(tmp_path / "gone")).code is ErrorCode.FILE_NOT_FOUND


def test_an_image_behind_a_url_is_loaded_and_leaves_no_file(
    make_loader: MakeLoader, httpserver: HTTPServer, tmp_path: Path
) -> None:
    data = image_bytes(picture(20, 30), "PNG")
    httpserver.expect_request("/a").respond_with_data(data, content_type="text/plain")
    image = make_loader().load_image(RemoteUrl(httpserver.url_for("/a")), param="p")
    assert np.array_equal(image.pixels, picture(20, 30))
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_web_page_behind_a_url_is_called_one(loader: MediaLoader, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data(b"<!DOCTYPE html><html></html>", content_type="image/png")
    error = refusal(loader, RemoteUrl(httpserver.url_for("/a")))
    assert error.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE
    assert error.message == "The URL answered with a web page (text/html), not an image."


def test_an_error_of_the_download_names_the_field(loader: MediaLoader, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data(b"", status=404)
    assert refusal(loader, RemoteUrl(httpserver.url_for("/a"))).code is ErrorCode.MEDIA_FETCH_FAILED
