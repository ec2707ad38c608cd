"""Who is let in, and what an upload becomes."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from heptapod.studio.app import create_app
from heptapod.studio.models import Collection
from heptapod.studio.security import is_local
from tests.studio.conftest import LIMITS, serving

TOKEN = "open-sesame"


@pytest.fixture(scope="module")
def guarded(collection: Collection) -> Iterator[str]:
    """A listener that is not of this machine only."""
    with serving(create_app(collection, LIMITS, TOKEN, names=None), "0.0.0.0") as where:
        yield where.replace("0.0.0.0", "127.0.0.1")


WRONG: list[dict[str, str]] = [
    {}, {"Authorization": "Bearer wrong"}, {"Cookie": "heptapod_12345678=wrong"}, {"Accept": "text/html"},
]  # fmt: skip


def every_path(address: str) -> list[tuple[str, str]]:
    paths = httpx.get(f"{address}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [
        *found,
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/assets/x.js"),
        ("GET", "/?token=no"),
    ]


def test_without_the_token_all_but_the_health_check_is_refused(guarded: str) -> None:
    paths = every_path(guarded)
    assert len(paths) >= 12
    for method, path in paths:
        expected = 200 if path == "/api/health" else 401
        for headers in WRONG:
            response = httpx.request(method, guarded + path, headers=headers)
            assert response.status_code == expected, (method, path)
            if expected == 401:
                assert "token: missing or wrong" in response.text


def test_the_token_opens_by_header_by_cookie_and_once_by_address(guarded: str) -> None:
    assert httpx.get(f"{guarded}/api/models", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    with httpx.Client(base_url=guarded) as browser:
        first = browser.get(f"/?token={TOKEN}")
        assert first.status_code == 303
        assert first.headers["location"] == "./", "the address that stays has no token"
        assert "HttpOnly" in first.headers["set-cookie"]
        assert "SameSite=strict" in first.headers["set-cookie"]
        assert browser.get("/api/models").status_code == 200
        name, _, value = first.headers["set-cookie"].partition(";")[0].partition("=")
    for others in ('theme={"a": 1}', "a b=c", "k[1]=2", ";;", "heptapod_00000000=another studio's"):
        cookies = {"Cookie": f"{others}; {name}={value}"}
        assert httpx.get(f"{guarded}/api/models", headers=cookies).status_code == 200, others


def test_another_sites_page_and_a_foreign_name_are_refused(address: str, guarded: str) -> None:
    port = address.rpartition(":")[2]
    for name in ("localhost", "127.0.0.1", "[::1]"):
        assert httpx.get(f"{address}/api/models", headers={"Host": f"{name}:{port}"}).status_code == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[", ""):
        response = httpx.get(f"{address}/api/models", headers={"Host": name})
        assert response.status_code in (400, 403), name
    headers = {"Origin": "http://evil.example", "Authorization": f"Bearer {TOKEN}"}
    for server in (address, guarded):
        response = httpx.post(f"{server}/api/generate", headers=headers, json={"model": "run"})
        assert response.status_code == 403
        assert "another site's page" in response.text
    for odd in ("http://[", "null", "", "http://", "//"):
        response = httpx.get(f"{guarded}/api/models", headers={**headers, "Origin": odd})
        assert response.status_code == 403, odd
    own = {"Origin": guarded, "Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{guarded}/api/models", headers=own).status_code == 200


def test_a_name_that_is_allowed(collection: Collection) -> None:
    with serving(create_app(collection, LIMITS, TOKEN, names=["studio.example"])) as address:
        headers = {"Authorization": f"Bearer {TOKEN}", "Host": "studio.example", "Origin": "https://studio.example"}
        assert httpx.get(f"{address}/api/models", headers=headers).status_code == 200
        assert httpx.get(f"{address}/api/models", headers={**headers, "Host": "other.example"}).status_code == 403


def test_which_addresses_are_local() -> None:
    assert all(map(is_local, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_local, ["0.0.0.0", "::", "192.168.0.2", "example.org", ""]))


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def huge_png(side: int) -> bytes:
    """A PNG of side × side pixels in a few hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (side + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8))
DEEP = Image.fromarray((np.arange(320, dtype=np.uint32).reshape(16, 20) * 204).astype(np.uint16))


def send(client: httpx.Client, content: bytes, name: str = "image.png", **form: str) -> httpx.Response:
    return client.post("/api/encode", data={"model": "run", **form}, files={"file": (name, content)})


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_100_megapixels_are_refused_before_they_are_decoded(client: httpx.Client) -> None:
    content = huge_png(10_000)
    assert len(content) < LIMITS.upload_bytes
    response = send(client, content)
    assert response.status_code == 413
    assert response.json()["detail"] == "file: 10000×10000 pixels (height×width) given, at most 2,000,000 are taken"
    assert response.elapsed.total_seconds() < 1


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"just words", 415, "file: no image of a kind that is taken (PNG, JPEG, WEBP, GIF, TIFF, BMP)"),
        (b"", 415, "file: no image of a kind that is taken"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "file: no image of a kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", 415, "file: no image of a kind"),
        (file_of(NOISE, "JPEG")[:-100], 422, "file: a damaged JPEG image"),
        (file_of(NOISE, "PNG")[:300], 422, "file: a damaged PNG image"),
        (file_of(NOISE.convert("F"), "TIFF"), 422, "file: pixels of mode F have no fixed range"),
        (b"x" * (LIMITS.upload_bytes + 1), 413, "file: 1,000,001 bytes given, at most 1,000,000 are taken"),
        (b"x" * (3 * LIMITS.upload_bytes), 413, ""),
    ],
    ids=["text", "empty", "svg", "eps", "truncated jpeg", "truncated png", "float", "bytes", "body"],
)
def test_what_is_refused(client: httpx.Client, content: bytes, status: int, message: str) -> None:
    response = send(client, content)
    assert response.status_code == status
    assert message in response.text


PIXELS = "pixels (height×width)"
FRAMES = [Image.new("RGB", (20, 16), color) for color in ("red", "blue")]
ANIMATED = file_of(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:])
CLEAR = Image.new("RGBA", (20, 16), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("content", "converted", "pixel"),
    [
        (file_of(NOISE, "PNG"), [], NOISE.getpixel((0, 0))),
        (file_of(NOISE, "BMP"), [], NOISE.getpixel((0, 0))),
        (ANIMATED, ["the first of several pictures in the GIF file"], (255, 0, 0)),
        (file_of(DEEP, "TIFF"), ["16 bits per channel brought to 8", "gray read as color"], (0, 0, 0)),
        (file_of(DEEP, "PNG"), ["16 bits per channel brought to 8", "gray read as color"], (0, 0, 0)),
        (file_of(DEEP, "PNG", transparency=0), ["16 bits per channel brought to 8", "gray read as color"], (0, 0, 0)),
        (file_of(CLEAR, "PNG"), ["transparency put on white"], (255, 255, 255)),
        (file_of(NOISE.resize((40, 64)), "PNG"), [f"resized and cropped from 64×40 {PIXELS} to 16×20"], None),
        (file_of(FRAMES[0].convert("CMYK"), "JPEG", quality=95), ["CMYK colors brought to RGB"], None),
    ],
    ids=["png", "bmp", "animated gif", "16-bit tiff", "16-bit png", "color key", "transparent", "large", "cmyk"],
)  # fmt: skip
def test_what_is_converted_and_said(
    client: httpx.Client, content: bytes, converted: list[str], pixel: tuple[int, ...] | None
) -> None:
    response = send(client, content, "any name.exe")
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["converted"] == converted
    assert found["size"] == [16, 20]
    assert len(found["values"]) == 20
    if pixel is not None:
        assert Image.open(io.BytesIO(base64.b64decode(found["picture"]))).getpixel((0, 0)) == pixel


@pytest.mark.parametrize("options", [{"format": "TIFF"}, {"format": "PNG"}, {"format": "PNG", "transparency": 0}])
def test_16_bits_keep_their_order(client: httpx.Client, options: dict[str, Any]) -> None:
    file = io.BytesIO()
    DEEP.save(file, **options)
    found = send(client, file.getvalue()).json()
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["picture"]))))[..., 0]
    assert (shown == (np.asarray(DEEP) >> 8)).all()


def test_large_pictures_are_averaged_first_and_stay_upright(client: httpx.Client) -> None:
    """1,000×600 pixels, the left half white; turned by its EXIF tag, the upper half is."""
    image = Image.new("RGB", (1000, 600))
    image.paste("white", (0, 0, 500, 600))
    for orientation, wide in ((1, True), (6, False)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found = send(client, file_of(image, "PNG", exif=exif)).json()
        assert "resized and cropped from 600×1000 pixels (height×width) to 16×20" in found["converted"]
        assert ("turned upright by its EXIF tag" in found["converted"]) is not wide
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["picture"]))))
        half = shown[:, :8] if wide else shown[:6]
        other = shown[:, 12:] if wide else shown[10:]
        assert half.min() == 255
        assert other.max() == 0


def test_a_picture_of_the_models_size_that_is_turned_is_fitted_too(client: httpx.Client) -> None:
    """Stored as 16×20, the model's size, but upright it is 20×16."""
    exif = Image.Exif()
    exif[0x0112] = 6
    found = send(client, file_of(NOISE, "PNG", exif=exif)).json()
    assert found["size"] == [16, 20]
    assert len(found["values"]) == 20
    assert "turned upright by its EXIF tag" in found["converted"]


def test_a_size_that_is_kept_must_fit_the_grid(client: httpx.Client) -> None:
    assert send(client, file_of(NOISE.resize((12, 8)), "PNG"), fit="keep").json()["grid"] == [2, 3]
    odd = send(client, file_of(NOISE.resize((13, 8)), "PNG"), fit="keep")
    assert (odd.status_code, "is not divisible by the tokenizer's factor 4" in odd.text) == (422, True)
    wide = send(client, file_of(NOISE.resize((128, 8)), "PNG"), fit="keep")
    assert (wide.status_code, "8×128 pixels (height×width) to be kept, at most 64 a side" in wide.text) == (413, True)


def test_no_path_of_a_client_is_opened(client: httpx.Client, place: Path) -> None:
    secret = place / "run" / "config.yaml"
    for path in (
        "/api/models/..%2Frun/run", "/api/models/run/run/grids/model/..%2F..%2Fconfig.yaml",
        "/api/models/run/run/grids/../10", "/..%2f..%2fpyproject.toml", f"/{secret}", "/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2fapp.py",
    ):  # fmt: skip
        response = client.get(path)
        assert response.status_code in (404, 422), path
        assert "a run" not in response.text
    response = client.post("/api/generate", json={"model": str(place / "run")})
    assert response.status_code == 404
