"""S1 for images: a folder with one damaged image is read to the size it should have, or not.

Five formats, small and whole, are damaged byte by byte; PNG chunk by chunk with its checksums repaired. Some
damage is known to be none that may pass: more pixels than a file of that length can have, an animation,
another format, the second half gone.
"""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
from PIL import Image

from cnnctl.data.folder import read_folder
from tests.torture.guard import guard, make_ground
from tests.torture.mutations import INTERESTING, draw_stream, mutate
from tests.torture.tally import Mismatch, Tally

SIDE = 4
SIGNATURE = b"\x89PNG\r\n\x1a\n"
TOKENS = (
    *(
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"PLTE",
        b"tRNS",
        b"acTL\0\0\0\x08\0\0\0\2\0\0\0\0",
        b"fdAT",
        b"zTXt",
        b"iTXt",
        b"iCCP",
    ),
    *(
        b"eXIf",
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xc4",
        b"\xff\xda",
        b"\xff\xdd\0\4\0\1",
        b"\xff\xff",
    ),
    *(
        b"\xff\xe1\0\x10Exif\0\0MM\0*\0\0\0\x08",
        b"\xff\xe2\0\x08MPF\0",
        b"RIFF",
        b"WEBP",
        b"VP8 ",
        b"VP8L",
        b"VP8X\n\0\0\0\x02",
    ),
    *(
        b"ANIM",
        b"ANMF",
        b"ALPH",
        b"BM",
        b"P6 4 3 255\n",
        b"P5",
        b"P3",
        b"Pf",
        b"#",
        b" ",
        b"\n",
        b"99999999",
        b"-1",
        b"GIF89a",
    ),
    *(struct.pack(order + "I", number % 2**32) for order in "<>" for number in INTERESTING),
)


def check_image(seed: int, number: int, tally: Tally) -> None:
    """Two images of one class, of which one is damaged."""
    rng = draw_stream(seed, number)
    ground, files = make_ground("image"), create_images()
    folder = ground / "class"
    folder.mkdir(exist_ok=True)
    names = list(files)
    kind = rng.choice((*names, "chunks", "chunks", rng.choice(list(FORBIDDEN))))
    if kind in files:
        damaged = mutate(rng, files[kind], list(files.values()), TOKENS)
    elif kind == "chunks":
        damaged = change_chunks(rng, files[rng.choice([name for name in names if name.startswith("png")])])
    else:
        damaged = FORBIDDEN[kind](rng)
    (folder / "0").write_bytes(damaged)
    (folder / "1").write_bytes(files["png"])
    channels = rng.choice((None, 1, 3))
    outcome = guard(lambda: read_folder(ground, seed=0, image_size=SIDE, channels=channels), ground, tally)
    if outcome.refusal is None:
        if kind in FORBIDDEN:
            raise Mismatch(f"{kind} was accepted: {damaged!r:.2000}")
        for split in outcome.value[:2]:
            if split.images.shape != (1, channels or split.images.shape[1], SIDE, SIDE):
                raise Mismatch(f"{kind}: images {split.images.shape}")
    tally.counts[f"{kind} {'refused' if outcome.refusal else 'accepted'}"] += 1
    tally.counts["cases"] += 1


@cache
def create_images() -> dict[str, bytes]:
    """A whole image of each format and kind that differs; reads them, to import what Pillow imports late."""
    Image.init()
    from PIL import MpoImagePlugin, TiffImagePlugin  # noqa: F401  (metadata of JPEG is read with these)

    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(256, size=(9, 13, 3), dtype=np.uint8))
    flat = Image.new("RGB", (16, 16), (9, 8, 7))
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    files = {
        "png": encode(noise, "PNG"),
        "png grey": encode(noise.convert("L"), "PNG"),
        "png palette": encode(noise.convert("P"), "PNG", transparency=3),
        "png alpha": encode(noise.convert("RGBA"), "PNG"),
        "jpeg": encode(noise, "JPEG", exif=exif),
        "jpeg progressive": encode(noise, "JPEG", progressive=True),
        "jpeg flat": encode(flat, "JPEG", quality=10),
        "jpeg cmyk": encode(noise.convert("CMYK"), "JPEG"),
        "bmp": encode(noise, "BMP"),
        "bmp palette": encode(noise.convert("P"), "BMP"),
        "ppm": encode(noise, "PPM"),
        "ppm text": b"P3 2 2 255\n" + b"1 2 3 " * 4,
        "pbm": encode(noise.convert("1"), "PPM"),
        "webp": encode(noise, "WEBP"),
        "webp lossless": encode(noise, "WEBP", lossless=True),
        "webp flat": encode(flat, "WEBP", lossless=True),
        "webp exif": encode(noise.convert("RGBA"), "WEBP", exif=exif),
    }
    ground = make_ground("image")
    (ground / "class").mkdir(exist_ok=True)
    for content in files.values():
        for damaged in (content[: len(content) // 2], content):
            for name in "01":
                (ground / "class" / name).write_bytes(damaged)
            try:
                read_folder(ground, seed=0, image_size=SIDE)
            except Exception:
                if damaged is content:
                    raise
    return files


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def make_png(
    width: int, height: int, data: bytes, *, bits: int = 8, colour: int = 2, more: bytes = b""
) -> bytes:
    """A PNG whose header says what it likes; `more` are whole chunks."""
    header = struct.pack(">IIBBBBB", width % 2**32, height % 2**32, bits, colour, 0, 0, 0)
    return (
        SIGNATURE + make_chunk(b"IHDR", header) + more + make_chunk(b"IDAT", data) + make_chunk(b"IEND", b"")
    )


def make_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def change_chunks(rng: Random, data: bytes) -> bytes:
    """Chunks with other contents, kinds, order and number, their checksums right."""
    chunks, place = [], len(SIGNATURE)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(chunks))
        kind, content = chunks[at]
        match rng.randrange(6):
            case 0:
                chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
            case 1:
                chunks[at] = (rng.choice(KINDS), content)
            case 2:
                chunks.insert(at, (rng.choice(KINDS), rng.choice(CONTENTS)))
            case 3 if kind == b"IDAT":
                pixels = zlib.decompressobj().decompress(create_images()["png"][41:], 2**16)
                chunks[at] = (kind, zlib.compress(mutate(rng, pixels, [pixels], (b"\5", b"\xff"))))
            case _:
                chunks[at] = (kind, mutate(rng, content, [content], TOKENS))
    return SIGNATURE + b"".join(make_chunk(kind, content) for kind, content in chunks)


KINDS: tuple[bytes, ...] = (
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"gAMA",
    b"iCCP",
    b"zTXt",
    b"tEXt",
    b"iTXt",
    b"eXIf",
    b"acTL",
)
KINDS += (b"fcTL", b"fdAT", b"pHYs", b"sRGB", b"cHRM", b"\0\0\0\0", b"idat")
BOMB = zlib.compress(bytes(2**20), 9)
CONTENTS = (
    *(
        b"",
        b"\0",
        b"x\0\0" + BOMB,
        b"x\0" + b"y" * 5000,
        b"x\0\1\0\0\0" + BOMB,
        b"\0\0\0\x02\0\0\0\0",
        bytes(26),
    ),
    *(
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(100),
        b"MM\0*\0\0\0\x08\0\1" + bytes(12) + b"\0\0\0\x08",
        b"\xff" * 768,
    ),
)


def _lie_about_size(rng: Random) -> bytes:
    """More than a million pixels in a small file of any format that says how many they are."""
    width, height = rng.choice(((4096, 4096), (2**14, 2**14), (2**31 - 1, 1), (60_000, 60_000), (1500, 1500)))
    files = create_images()
    match rng.randrange(5):
        case 0:
            return make_png(width, height, files["png"][41:-16])
        case 1:
            data = rng.choice((files["jpeg"], files["jpeg progressive"], files["jpeg flat"]))
            place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
            extents = struct.pack(">HH", min(height, 65_535), min(width, 65_535))
            return data[:place] + extents + data[place + 4 :]
        case 2:
            return files["bmp"][:18] + struct.pack("<II", width, height) + files["bmp"][26:]
        case 3:
            return f"P{rng.choice((5, 6, 4, 2, 3))} {width} {height} 255\n".encode() + bytes(100)
    side = rng.choice((1500, 4096, 2**14)) - 1
    webp = bytearray(files["webp flat"])
    old = int.from_bytes(webp[21:25], "little")
    webp[21:25] = (old >> 28 << 28 | side << 14 | side).to_bytes(4, "little")
    return bytes(webp)


@cache
def create_animations() -> list[bytes]:
    frames = [Image.new("RGB", (8, 8), (k, k, k)) for k in (0, 200)]
    return [
        encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("WEBP", {}))
    ]


@cache
def create_foreign() -> list[bytes]:
    image = Image.new("RGB", (8, 8))
    kinds = (
        "GIF",
        "TIFF",
        "ICO",
        "TGA",
        "PCX",
        "SGI",
        "ICNS",
        "DDS",
        "PDF",
        "EPS",
        "JPEG2000",
        "AVIF",
        "QOI",
    )
    return [encode(image, kind) for kind in kinds if kind in Image.SAVE]


FORBIDDEN: dict[str, Callable[[Random], bytes]] = {
    "a lie about its size": _lie_about_size,
    "an animation": lambda rng: rng.choice(create_animations()),
    "another format": lambda rng: rng.choice(create_foreign()),
    "16 bits": lambda rng: make_png(2, 2, zlib.compress(bytes(2 * 5)), bits=16, colour=0),
    "half a file": lambda rng: (data := rng.choice(list(create_images().values())))[
        : rng.randrange(len(data) // 2)
    ],
}
