from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.image_files import ENDINGS, images_below
from cissod_bench.files.images import MAX_PIXELS, broken_name_rule, check_header, read_image, safe_path


def picture(width: int = 40, height: int = 30) -> np.ndarray:
    """A smooth RGB picture, uint8."""
    down, right = np.mgrid[0:height, 0:width]
    return np.stack([right * 6, down * 8, (right + down) * 3], axis=2).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_file_that_counts_as_an_image_is_read(tmp_path: Path, ending: str) -> None:
    grey = ending == ".pgm"
    file = saved(tmp_path / f"a{ending.upper()}", Image.fromarray(picture()[..., 0] if grey else picture()))
    assert images_below(tmp_path) == [file.name]
    assert check_header(file)[:2] == (40, 30)
    assert abs(read_image(file).astype(int).mean() - picture()[..., slice(1 if grey else 3)].mean()) < 2


@pytest.mark.parametrize("name", ["a.jpg", "train/a.jpg", "a..b.jpg", "..a/b..jpg", "é ü.png", "patch1/a:b.jpg"])
def test_plain_names_are_kept(tmp_path: Path, name: str) -> None:
    assert safe_path(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    ["", "../a.jpg", "a/../../b.jpg", "a/..", "/etc/passwd", "\\a.jpg", "C:\\a.jpg", "C:a.jpg", "..\\a.jpg", "a\0.jpg",
     "a\n.jpg", "\\\\host\\share\\a.jpg"],
)  # fmt: skip
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    assert broken_name_rule(name) is not None
    with pytest.raises(DataFault, match="file_name must be"):
        safe_path(tmp_path, name)


def test_a_link_inside_the_folder_is_followed_and_one_that_leaves_it_is_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "images", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "real.jpg").write_bytes(b"x")
    (outside / "secret.jpg").write_bytes(b"x")
    (root / "inner.jpg").symlink_to("real.jpg")
    (root / "file.jpg").symlink_to(outside / "secret.jpg")
    (root / "folder").symlink_to(outside)
    linked_root = tmp_path / "linked"
    linked_root.symlink_to(root)
    assert safe_path(root, "inner.jpg") == root / "inner.jpg"
    assert safe_path(linked_root, "real.jpg") == linked_root / "real.jpg"
    for name in ("file.jpg", "folder/secret.jpg"):
        with pytest.raises(DataFault, match="leaves"):
            safe_path(root, name)


def test_a_link_may_lead_anywhere_within_the_data_root(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside.jpg"
    (data / "images").mkdir(parents=True)
    (data / "originals").mkdir()
    (data / "originals" / "real.jpg").write_bytes(b"x")
    outside.write_bytes(b"x")
    (data / "images" / "a.jpg").symlink_to("../originals/real.jpg")
    (data / "images" / "b.jpg").symlink_to(outside)
    assert safe_path(data / "images", "a.jpg", within=data) == data / "images" / "a.jpg"
    with pytest.raises(DataFault, match=r"leaves .*images and the data root"):
        safe_path(data / "images", "b.jpg", within=data)
    with pytest.raises(DataFault, match="leaves"):
        safe_path(data / "images", "a.jpg")


def test_colours_come_as_blue_green_red(tmp_path: Path) -> None:
    wanted = picture()[:, :, ::-1]
    read = read_image(saved(tmp_path / "a.png", Image.fromarray(picture())), 40, 30)
    assert read.dtype == np.uint8
    assert np.array_equal(read, wanted)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("L", "jpg"), ("LA", "png"), ("P", "png"), ("1", "png"), ("RGBA", "png"), ("CMYK", "jpg"),
     ("RGB", "webp"), ("RGB", "bmp"), ("RGB", "tiff")],
)  # fmt: skip
def test_other_colour_modes_become_three_channels(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    read = read_image(saved(tmp_path / f"a.{suffix}", image), 40, 30)
    assert (read.dtype, read.shape) == (np.uint8, (30, 40, 3))
    wanted = np.asarray(image.convert("RGB"))[:, :, ::-1].astype(int)
    assert np.abs(read.astype(int) - wanted).mean() < 12


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_become_eight(tmp_path: Path, channels: int) -> None:
    deep = np.repeat(picture()[:, :, :1], channels, axis=2).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    read = read_image(tmp_path / "a.png", 40, 30)
    assert (read.dtype, read.shape) == (np.uint8, (30, 40, 3))
    assert np.abs(read[:, :, 0].astype(int) - picture()[:, :, 0]).max() <= 1


def test_the_rotation_in_exif_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    path = saved(tmp_path / "a.jpg", Image.fromarray(picture()), exif=exif, quality=95)
    read = read_image(path, 40, 30)
    assert read.shape == (30, 40, 3)
    assert np.abs(read.astype(int) - picture()[:, :, ::-1]).mean() < 6


def test_another_size_than_annotated_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(picture()))
    with pytest.raises(DataFault, match=r"a\.png: the image is 40 x 30 pixels; its annotation says 30 x 40"):
        read_image(path, 30, 40)
    assert read_image(path).shape == (30, 40, 3)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match=r"none\.jpg: the image cannot be read"):
        read_image(tmp_path / "none.jpg", 40, 30)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_cut_off_image_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataFault, match=rf"a\.{suffix}: "):
        read_image(path, 120, 90)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}], ids=str)
def test_a_jpeg_with_more_behind_its_end_is_read(tmp_path: Path, options: dict[str, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise), **options)
    wanted = read_image(path, 120, 90)
    path.write_bytes(path.read_bytes() + b"\xff\xda\xff" + b"\0" * 100_000)
    assert np.array_equal(read_image(path, 120, 90), wanted)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_the_end_of_a_preview_is_not_the_end_of_its_jpeg(tmp_path: Path, share: float) -> None:
    preview, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(noise[:20, :20]).save(preview, "JPEG")
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise), comment=preview.getvalue())
    data = path.read_bytes()
    assert data.count(b"\xff\xd9") == 2
    assert read_image(path, 120, 90).shape == (90, 120, 3)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataFault, match="is cut off at byte"):
        read_image(path, 120, 90)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("<html>404</html>", encoding="utf-8")
    with pytest.raises(DataFault, match="this is no image"):
        read_image(path, 40, 30)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(16_000, 16_000), (60_000, 60_000), (5_200_000, 50)])
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    path = tmp_path / "a.png"
    path.write_bytes(bomb(*size))
    started = time.perf_counter()
    with pytest.raises(DataFault, match="not decoded"):
        read_image(path, *size)
    assert time.perf_counter() - started < 1


def test_a_photo_of_108_megapixels_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bomb(12_000, 9_000))  # its header is a photo's; there are hardly any pixels behind it
    with pytest.raises(DataFault, match=r"cannot be decoded|is cut off"):
        read_image(path, 12_000, 9_000)


def test_the_most_pixels_are_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(picture()))
    monkeypatch.setenv("CISSOD_MAX_PIXELS", "1200")
    assert read_image(path).shape == (30, 40, 3)
    monkeypatch.setenv("CISSOD_MAX_PIXELS", "1199")
    with pytest.raises(DataFault, match=r"a\.png: the image claims 40 x 30 pixels, more than 1,199") as fault:
        read_image(path)
    assert "export CISSOD_MAX_PIXELS=1200" in (fault.value.remedy or "")
    monkeypatch.setenv("CISSOD_MAX_PIXELS", str(2**29))
    path.write_bytes(bomb(16_000, 16_000))
    with pytest.raises(DataFault, match=r"cannot be decoded|is cut off"):
        read_image(path)


@pytest.mark.parametrize("stated", ["many", "0", "-5", "1e8", "²", " "])
def test_a_wrong_setting_of_the_most_pixels_is_refused(
    stated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CISSOD_MAX_PIXELS", stated)
    with pytest.raises(UsageFault, match="CISSOD_MAX_PIXELS is the most pixels"):
        read_image(saved(tmp_path / "a.png", Image.fromarray(picture())))


def test_real_images_are_read_as_pillow_reads_them(test_data: Path) -> None:
    for path in sorted((test_data / "coco_mini/images").iterdir())[:20]:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            wanted = np.asarray(image.convert("RGB"))[:, :, ::-1].astype(int)
        read = read_image(path, wanted.shape[1], wanted.shape[0])
        assert np.abs(read - wanted).mean() < 1
