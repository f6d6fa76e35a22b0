"""S3: downloads from a server that lies: the file is right or as it was before, and nothing else is left.

The server speaks to sockets and not HTTP, so that it can break every rule of it. Each answer is known to be
one that has to be taken or one that may not be; a client that waits for ever is found by its thread.
"""

import gzip
import hashlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, NamedTuple

from cnnctl.data.fetch import RemoteFile, fetch_file
from cnnctl.errors import DataError
from tests.torture.guard import make_ground
from tests.torture.mutations import draw_stream
from tests.torture.tally import Mismatch, Tally

STALL_S = 0.25
PATIENCE_S = 60.0
"""For a client, however busy the machine: many times what it may wait for all its mirrors."""
MOST_CHARACTERS = 1000
CLIENTS = 8

Parts = Iterator[bytes]
"""What the server sends, piece by piece, until it closes the connection."""


class Request(NamedTuple):
    """What the server knows: the content, its random numbers, and where it is itself."""

    content: bytes
    rng: Random
    base: str
    path: str


def _answer(request: Request, status: str = "200 OK", body: bytes | None = None, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (request.content if body is None else body)


def _send_whole(request: Request) -> Parts:
    yield _answer(request, Content_Length=len(request.content))


def _send_until_closed(request: Request) -> Parts:
    yield _answer(request)


def _send_in_pieces(request: Request) -> Parts:
    """Headers and body cut anywhere."""
    data = _answer(request, Content_Length=len(request.content), X_More="y" * 100)
    while data:
        size = request.rng.choice((1, 7, 100, 5000, 10**6))
        yield data[:size]
        data = data[size:]


def _send_chunked(request: Request) -> Parts:
    yield _answer(request, body=b"", Transfer_Encoding="chunked")
    data = request.content
    while data:
        size = request.rng.randrange(1, 20_000)
        yield f"{len(data[:size]):x};a=b\r\n".encode() + data[:size] + b"\r\n"
        data = data[size:]
    yield b"0\r\n\r\n"


def _send_after_continue(request: Request) -> Parts:
    yield b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 2
    yield from _send_whole(request)


def _redirect_to_good(request: Request) -> Parts:
    """Up to five times, to an address or a path."""
    hops = request.path.count("hop")
    if hops == request.rng.choice((1, 5)) or hops == 5:
        yield from _send_whole(request)
    else:
        place = request.rng.choice((request.base, "", request.base.replace("http", "HTTP")))
        status = request.rng.choice(("301 M", "302 F", "303 S", "307 T", "308 P"))
        yield _answer(request, status, b"<html>", Location=f"{place}{request.path}hop")


GOOD: tuple[Callable[[Request], Parts], ...] = (
    _send_whole,
    _send_until_closed,
    _send_in_pieces,
    _send_chunked,
    _send_after_continue,
    _redirect_to_good,
)


def _truncate(request: Request) -> Parts:
    content, rng = request.content, request.rng
    cut = rng.choice((0, len(content) // 2, len(content) - 1, rng.randrange(len(content))))
    headers: dict[str, Any] = rng.choice(({}, {"Content_Length": len(content)}))
    yield _answer(request, body=content[:cut], **headers)


def _send_other_bytes(request: Request) -> Parts:
    content, rng = bytearray(request.content), request.rng
    match rng.randrange(4):
        case 0:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        case 1:
            content[:] = bytes(len(content))
        case 2:
            content.reverse()
        case 3:
            content[:] = b"<html>captive portal</html>"
    if content == request.content:  # a single byte backwards, say
        content[0] ^= 1
    yield _answer(request, body=bytes(content), Content_Length=len(content))


def _lie_about_length(request: Request) -> Parts:
    size = len(request.content)
    lengths = (size - 1, size + 1, 0, 2**40, 2**63, 2**200)
    yield _answer(request, Content_Length=request.rng.choice(lengths))


def _send_too_much(request: Request) -> Parts:
    yield _answer(request) + request.rng.randbytes(request.rng.choice((1, 1000)))


def _send_for_ever(request: Request) -> Parts:
    yield _answer(request)
    while True:
        yield request.content


def _send_chunks_for_ever(request: Request) -> Parts:
    yield _answer(request, body=b"", Transfer_Encoding="chunked")
    for size in count(1):
        yield b"%x\r\n" % (size % 3 + 1) + bytes(size % 3 + 1) + b"\r\n"


def _lie_in_chunks(request: Request) -> Parts:
    yield _answer(request, body=b"", Transfer_Encoding="chunked")
    yield request.rng.choice(
        (b"ffffffffffffffff\r\nx", b"-1\r\nxx", b"zz\r\nx", b"5\r\nabc", b"1" * 70_000, b"0\r\n\r\n")
    )


def _pack_it(request: Request) -> Parts:
    """The right file once it is unpacked, which nobody asked for; or a bomb."""
    packed = gzip.compress(request.rng.choice((request.content, bytes(10**6))))
    yield _answer(request, body=packed, Content_Encoding="gzip", Content_Length=len(packed))


def _send_a_part(request: Request) -> Parts:
    """As if it had been asked to go on where another download ended."""
    size, start = len(request.content), request.rng.randrange(1, len(request.content))
    part = request.content[start:]
    span = f"bytes {start}-{size - 1}/{size}"
    yield _answer(request, "206 Partial Content", part, Content_Range=span, Content_Length=len(part))


def _fail(request: Request) -> Parts:
    codes = (204, 206, 304, 400, 401, 403, 404, 407, 416, 418, 429, 500, 503, 599, 999)
    code = request.rng.choice(codes)
    body = request.rng.choice((b"", b"<html>", request.content[:-1]))
    yield _answer(request, f"{code} \x1b[2JNo", body, Content_Length=len(body), Retry_After="99999")


def _redirect_elsewhere(request: Request) -> Parts:
    """To what is not https, to nowhere, or to nonsense; in one case of three to where the right file lies."""
    if request.path.endswith("followed"):
        yield from _send_whole(request)
        return
    places = (
        *(
            "http://example.org/x",
            "http://127.0.0.1.example.org/x",
            "http://localhost:1/x",
            "file:///etc/passwd",
        ),
        *(
            "ftp://127.0.0.1/x",
            "data:,x",
            "//example.org/x",
            "https://[::1/x",
            "http://127.0.0.1@example.org/",
        ),
        *(
            "http://[fe80::1%25lo]/",
            "gopher://127.0.0.1:1/x",
            "\x1b[2J",
            "http:",
            "http://127.0.0.1:99999/x",
            "x:y",
        ),
        *(
            "http://127.0.0.1:1/x",
            "http://127.0.0.1:a/",
            "http://127.0.0.1:-1/",
            "/\xff\xfe",
            "y" * 60_000,
            "/ x\ty",
        ),
    )
    place = f"{request.base.replace('127.0.0.1', 'localhost')}{request.path}followed"
    yield _answer(
        request, "302 Found", b"", Location=request.rng.choice((place, *request.rng.sample(places, 2)))
    )


def _redirect_for_ever(request: Request) -> Parts:
    yield _answer(request, "302 Found", b"", Location=request.path + request.rng.choice(("", "x")))
    while True:
        yield bytes(10_000)


def _redirect_nowhere(request: Request) -> Parts:
    yield _answer(request, "301 Moved", b"", **request.rng.choice(({}, {"Location": ""})))


def _say_nothing(request: Request) -> Parts:
    yield b""
    time.sleep(3 * STALL_S)


def _stop_talking(request: Request) -> Parts:
    data = _answer(request, Content_Length=len(request.content))
    yield data[: min(request.rng.choice((5, 30, 60, len(data) // 2, len(data))), len(data) - 1)]
    time.sleep(3 * STALL_S)


def _drip(request: Request) -> Parts:
    """So slowly that it would take hours, in the status, the headers or the body, but never silent."""
    data = _answer(request, body=b"\0" * 10**6, X_More="y" * 500, Content_Length=len(request.content))
    start = request.rng.choice((0, 20, data.index(b"\r\n\r\n") + 4))
    yield data[:start]
    for byte in data[start:]:
        yield bytes([byte])
        time.sleep(STALL_S / 5)


def _continue_for_ever(request: Request) -> Parts:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 100


def _send_headers_for_ever(request: Request) -> Parts:
    yield b"HTTP/1.1 200 OK\r\n"
    if request.rng.random() < 0.5:
        while True:
            yield b"y" * 1000
    for number in count():
        yield b"X-%d: y\r\n" % number


def _send_no_http(request: Request) -> Parts:
    yield request.rng.choice(
        (
            *(
                b"",
                b"\0" * 100,
                b"\x16\x03\x01 not HTTP\r\n\r\n",
                b"HTTP/9.9 200 OK\r\n\r\n",
                b"HTTP/1.1 2000 OK\r\n\r\n",
            ),
            *(
                b"HTTP/1.1 -1 OK\r\n\r\n",
                b"SSH-2.0-OpenSSH\r\n",
                b"HTTP/1.1 200\r\n" + b"\xff" * 100,
                b"\x1b[2J" * 9000,
            ),
            *(b"HTTP/0.9 200\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n", b"220 ftp ready\r\n"),
        )
    )


def _reset(request: Request) -> Parts:
    """Close with an error, before or in the middle of the body."""
    data = _answer(request, Content_Length=len(request.content))
    yield data[: request.rng.choice((0, 10, len(data) // 2))]
    raise ConnectionResetError


BAD: tuple[Callable[[Request], Parts], ...] = (
    _truncate,
    _send_other_bytes,
    _lie_about_length,
    _send_too_much,
    _send_for_ever,
    _send_chunks_for_ever,
    _lie_in_chunks,
    _pack_it,
    _send_a_part,
    _fail,
    _redirect_elsewhere,
    _redirect_for_ever,
    _redirect_nowhere,
    _say_nothing,
    _stop_talking,
    _drip,
    _continue_for_ever,
    _send_headers_for_ever,
    _send_no_http,
    _reset,
)
ANSWERS = {answer.__name__.strip("_"): answer for answer in (*GOOD, *BAD)}


def check_download(seed: int, number: int, tally: Tally) -> None:
    """One file from one to three mirrors; one case of ten by eight clients at once."""
    rng = draw_stream(seed, number)
    folder = make_ground("downloads") / f"{seed}-{number}"
    content = rng.randbytes(rng.choice((1, 1000, 70_000, 300_000)))
    file = RemoteFile("images.gz", len(content), hashlib.sha256(content).hexdigest())
    server = start_server()
    clients = CLIENTS if rng.random() < 0.1 else 1
    plans = [_draw_answers(rng) for _ in range(clients)]
    before = rng.choice((None, None, b"older", content))
    if before is not None or rng.random() < 0.5:
        folder.mkdir()
    if before is not None:
        (folder / file.name).write_bytes(before)
    ends: list[Path | Exception | None] = [None] * clients

    def download(client: int) -> None:
        mirrors = server.offer(content, plans[client], f"{seed}-{number}-{client}")
        stall_s = PATIENCE_S / 3 if ANSWERS[plans[client][-1]] in GOOD else STALL_S
        try:
            ends[client] = fetch_file(file, mirrors, folder, stall_s=stall_s, allow_loopback=True)
        except Exception as error:
            ends[client] = error

    threads = [Thread(target=download, args=(client,), daemon=True) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    for plan, end in zip(plans, ends, strict=True):
        _judge(" then ".join(plan), ANSWERS[plan[-1]] in GOOD, end)
    _judge_folder(
        folder, file.name, content if any(isinstance(end, Path) for end in ends) else before, clients
    )
    for plan in plans:
        tally.counts.update(plan)
    tally.counts["clients"] += clients
    tally.counts["cases"] += 1


def _draw_answers(rng: Random) -> list[str]:
    """Bad mirrors, of which the last may be good."""
    bad = [rng.choice(BAD) for _ in range(rng.choice((1, 1, 1, 2)))]
    if rng.random() < 0.3:
        bad = [*(answer for answer in bad[1:] if answer is not _drip), rng.choice(GOOD)]
    return [answer.__name__.strip("_") for answer in bad]


def _judge(plan: str, good: bool, end: Path | Exception | None) -> None:
    if end is None:
        raise Mismatch(f"{plan}: still waiting after {PATIENCE_S:.0f} s")
    if isinstance(end, Path) != good:
        raise Mismatch(f"{plan}: {end!r:.500}")
    if isinstance(end, Exception):
        line = str(end)
        if not isinstance(end, DataError) or not line.isprintable() or "http://127.0.0.1" not in line:
            raise Mismatch(f"{plan}: {type(end).__name__}: {line!r:.500}")
        if len(line) > MOST_CHARACTERS:
            raise Mismatch(f"{plan}: told in {len(line)} characters: {line:.200}")


def _judge_folder(folder: Path, name: str, wanted: bytes | None, clients: int) -> None:
    """What is there is right; then it is removed."""
    left = sorted(os.listdir(folder)) if folder.exists() else []
    if left != ([] if wanted is None else [name]):
        raise Mismatch(f"left behind: {left}")
    if wanted is not None and (folder / name).read_bytes() != wanted:
        raise Mismatch("the file is neither the right one nor what it was")
    for file in left:
        (folder / file).unlink()
    with suppress(FileNotFoundError):
        folder.rmdir()


class Server(ThreadingTCPServer):
    """Answers by the first part of the path, from what it was told to offer there."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.offers: dict[str, tuple[bytes, str]] = {}
        super().__init__(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server_address[1]}"

    def offer(self, content: bytes, answers: list[str], key: str) -> list[str]:
        """The mirrors, one for each answer."""
        for k, answer in enumerate(answers):
            self.offers[f"{key}-{k}"] = (content, answer)
        return [f"{self.base}/{key}-{k}/" for k in range(len(answers))]

    def handle_error(self, *_: object) -> None:
        """The clients judge."""


class Handler(BaseRequestHandler):
    """Reads one request and sends what is on offer, until it is all sent or nobody listens."""

    server: Server
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(PATIENCE_S)
        asked = b""
        while b"\r\n\r\n" not in asked and (more := self.request.recv(65_536)):
            asked += more
        path = asked.split(b" ")[1].decode("latin-1") if b" " in asked else "/"
        key = path.split("/")[1]
        content, answer = self.server.offers.get(key, (b"", "fail"))
        request = Request(content, Random(f"{key} {answer}"), self.server.base, path)
        with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            try:
                for part in ANSWERS[answer](request):
                    self.request.sendall(part)
            except ConnectionResetError:
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@cache
def start_server() -> Server:
    """One for each process; it ends with it."""
    os.environ["no_proxy"] = "127.0.0.1"
    server = Server()
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
