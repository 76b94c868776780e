"""Images of tasks: found as resources, links and content, with clear errors for bad ones."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import pytest

from agentcli.errors import TaskError
from agentcli.image_formats import MAX_BYTES, described, media_type, pixels, unfit
from agentcli.images import read_image, task_images
from agentcli.task import Task, parse, read


def png(width: int = 2, height: int = 2) -> bytes:
    """A red PNG image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    rows = b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


GIF = base64.b64decode("R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==")


LOSSY = base64.b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA")
LOSSLESS = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")
EXTENDED = base64.b64decode(
    "UklGRkoAAABXRUJQVlA4WAoAAAAQAAAAAAAAAAAAQUxQSAwAAAARBxAR/Q9ERP8DAABWUDggGAAAABQBAJ0BKgEAAQAA"
    "AP4AAA3AAP7mtQAAAA=="
)


def jpeg(width: int, height: int) -> bytes:
    """The start of a JPEG image: an application's segment, padding, then a frame header."""
    segment = b"\xff\xe1" + struct.pack(">H", 9) + b"\xff\xc0more"
    frame = struct.pack(">HBHHB", 11, 8, height, width, 1)
    return b"\xff\xd8" + segment + b"\xff\xff\xc2" + frame


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(640, 3), (640, 3)),
        (jpeg(720, 477), (720, 477)),
        (GIF, (1, 1)),
        (b"GIF87a" + struct.pack("<HH", 640, 421), (640, 421)),
        (LOSSY, (1, 1)),
        (LOSSLESS, (1, 1)),
        (EXTENDED, (1, 1)),
        (LOSSY[:26] + struct.pack("<HH", 800 | 1 << 14, 600), (800, 600)),
        (LOSSLESS[:21] + struct.pack("<I", 799 | 599 << 14 | 1 << 28), (800, 600)),
        (EXTENDED[:24] + b"\x0f\x27\0\x01\0\x01", (10_000, 65_538)),
    ],
)
def test_width_and_height(data: bytes, size: tuple[int, int]) -> None:
    assert pixels(data) == size


@pytest.mark.parametrize("whole", [png(), jpeg(2, 2), GIF, LOSSY, LOSSLESS, EXTENDED])
def test_a_damaged_image_is_noticed(whole: bytes) -> None:
    assert unfit(whole) == ""
    for length in range(12, 20 if whole != GIF else 8):
        assert pixels(whole[:length]) is None
    assert pixels(png(0, 0)) is None


def test_what_is_said_of_an_image() -> None:
    assert described(png(640, 3)) == "PNG, 640x3, 95 bytes"
    assert described(png()[:12]) == "PNG, 12 bytes"
    assert unfit(png()[:12]) == "it is damaged"
    assert (
        unfit(png() + bytes(2 * MAX_BYTES)) == "7.8 MB is more than the 3.9 MB that models accept"
    )
    assert unfit(jpeg(80, 8001)) == "models accept at most 8,000 pixels a side"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(), "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (GIF, "image/gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\x24\0\0\0WAVEfmt ", None),
        (b"<svg/>", None),
        (b"", None),
    ],
)
def test_the_content_says_what_it_is(data: bytes, kind: str | None, tmp_path: Path) -> None:
    assert media_type(data) == kind
    path = tmp_path / "misnamed.txt"
    path.write_bytes(data)
    if kind:
        image = read_image(path)
        assert (image.media_type, image.data, image.name) == (kind, data, "misnamed.txt")
    else:
        with pytest.raises(TaskError, match="not a PNG, JPEG, GIF or WebP image"):
            read_image(path)


def test_one_that_is_too_large_says_how_large(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(png() + bytes(MAX_BYTES))
    with pytest.raises(TaskError, match=r"big.png: 3.9 MB is more than the 3.9 MB that models"):
        read_image(path)
    assert len(base64.b64encode(bytes(MAX_BYTES))) <= 5 * 1024 * 1024


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "shot.png").write_bytes(png(3, 3))
    (folder / "my shot.gif").write_bytes(GIF)
    (folder / "logo.svg").write_text("<svg/>")
    return folder


def names(task: Task, workspace: Path) -> tuple[list[str], tuple[str, ...]]:
    images, notes = task_images(task, workspace)
    return [image.name for image in images], notes


def test_a_resource_of_kind_image(workspace: Path) -> None:
    task = parse(b"---\nresources:\n- {path: shot.png, kind: image}\n---\nLook.", "t.md")
    assert names(task, workspace) == (["shot.png"], ())


def test_a_missing_image_is_an_error_only_where_it_is_required(workspace: Path) -> None:
    text = "---\nresources:\n- {path: no.png, kind: image, required: %s}\n---\nLook."
    with pytest.raises(TaskError, match=r"t\.md: .*no\.png: no such image"):
        names(parse((text % "true").encode(), "t.md"), workspace)
    assert names(parse((text % "false").encode(), "t.md"), workspace) == ([], ())


def test_links_in_the_text(workspace: Path) -> None:
    text = (
        'See ![it](shot.png "title") and ![that](<my shot.gif>), again ![it](./shot.png).\n'
        "Not ![web](https://example.org/a.png), ![d](data:image/png;base64,xx), [page](shot.png),\n"
        "`![code](shot.png)` nor\n```md\n![fence](other.png)\n```\n"
    )
    assert names(Task(text), workspace) == (["shot.png", "my shot.gif"], ())


def test_a_link_to_nothing_stays_text_and_is_told(workspace: Path) -> None:
    found, notes = names(Task("Add ![badge](badge.png) and ![logo](logo.svg)", "-p"), workspace)
    assert found == []
    assert notes == (
        "-p: badge.png does not exist; its link is sent as text",
        "-p: logo.svg is not an image that models accept; its link is sent as text",
    )


def test_paths_begin_at_the_task_s_file_then_at_the_workspace(
    workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "beside.gif").write_bytes(GIF)
    file = tmp_path / "tasks" / "t.md"
    file.write_text("![a](beside.gif) ![b](shot.png)")
    assert names(read(file), workspace) == (["beside.gif", "shot.png"], ())


def test_too_many(workspace: Path) -> None:
    for number in range(21):
        (workspace / f"{number}.gif").write_bytes(GIF)
    text = " ".join(f"![]({number}.gif)" for number in range(21))
    with pytest.raises(TaskError, match="21 images are more than 20"):
        names(Task(text), workspace)
