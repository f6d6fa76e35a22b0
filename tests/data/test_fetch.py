"""Downloads against a server that lies: what arrives is right, or nothing is left behind."""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cnnctl.data.fetch import RemoteFile, fetch_file, placing
from cnnctl.errors import DataError

CONTENT = bytes(range(256)) * 1024
FILE = RemoteFile("images.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
STALL_S = 0.3

Answer = Callable[[BaseHTTPRequestHandler], object]


def answer(status: int = 200, body: bytes = b"", **headers: object) -> Answer:
    """A complete answer, with the headers given and no others."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def send_forever(handler: BaseHTTPRequestHandler) -> None:
    answer()(handler)
    while True:
        handler.wfile.write(CONTENT)


def stall(handler: BaseHTTPRequestHandler) -> None:
    answer(body=CONTENT[:1000], Content_Length=len(CONTENT))(handler)
    time.sleep(2 * STALL_S)


def drip(handler: BaseHTTPRequestHandler) -> None:
    answer(Content_Length=len(CONTENT))(handler)
    while True:
        handler.wfile.write(b"\0")
        time.sleep(STALL_S / 10)


def continue_forever(handler: BaseHTTPRequestHandler) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        handler.wfile.write(b"y")
        time.sleep(STALL_S / 10)


def redirect_forever(handler: BaseHTTPRequestHandler) -> None:
    answer(302, Location=f"{handler.path}x")(handler)


ANSWERS: dict[str, Answer] = {
    "/good/": answer(body=CONTENT, Content_Length=len(CONTENT)),
    "/unannounced/": answer(body=CONTENT),
    "/moved/": answer(301, Location="/good/images.gz"),
    "/truncated/": answer(body=CONTENT[:-1], Content_Length=len(CONTENT)),
    "/short/": answer(body=CONTENT[:-1]),
    "/announced-short/": answer(body=CONTENT[:-1], Content_Length=len(CONTENT) - 1),
    "/wrong/": answer(body=CONTENT[::-1], Content_Length=len(CONTENT)),
    "/long/": answer(body=CONTENT + b"\0"),
    "/endless/": send_forever,
    "/stall/": stall,
    "/drip/": drip,
    "/continue/": continue_forever,
    "/drip-headers/": drip_headers,
    "/verbose/": lambda handler: handler.wfile.write(b"SSH-2.0-\x1b[2J" + b"x" * 60_000),
    "/far/": answer(302, Location="ftp://" + "x" * 60_000),
    "/missing/": answer(404, body=b"<html>"),
    "/insecure/": answer(302, Location="http://example.org/images.gz"),
    "/local/": answer(302, Location="file:///etc/passwd"),
    "/nowhere/": answer(302),
    "/misdirected/": answer(302, Location="https://[::1/images.gz"),
    "/loop/": redirect_forever,
    "/garbage/": lambda handler: handler.wfile.write(b"\x16\x03\x01 not HTTP\r\n\r\n"),
    "/silent/": lambda handler: None,
}


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    def do_GET(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the client has had enough
            ANSWERS[f"/{self.path.split('/')[1]}/"](self)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Has room for eight clients to wait at once."""

    daemon_threads = True
    request_queue_size = 64


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server on the loopback."""
    with Server(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(folder: Path, *mirrors: str, **options: object) -> Path:
    return fetch_file(FILE, mirrors, folder, stall_s=STALL_S, allow_loopback=True, **options)


@pytest.mark.parametrize("path", ["/good/", "/unannounced/", "/moved/"])
def test_the_right_bytes_arrive(server: str, tmp_path: Path, path: str) -> None:
    assert fetch(tmp_path / "a" / "b", server + path) == tmp_path / "a" / "b" / "images.gz"
    assert (tmp_path / "a" / "b" / "images.gz").read_bytes() == CONTENT
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["images.gz"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/truncated/", "ends after 262,143 of 262,144 bytes"),
        ("/short/", "ends after 262,143 of 262,144 bytes"),
        ("/announced-short/", "has 262,143 bytes where 262,144 are expected"),
        ("/wrong/", f"SHA-256 {hashlib.sha256(CONTENT[::-1]).hexdigest()} where {FILE.sha256} is expected"),
        ("/long/", "goes on after the 262,144 bytes that are expected"),
        ("/endless/", "goes on after the 262,144 bytes that are expected"),
        ("/stall/", "timed out"),
        ("/drip/", "bytes came in 0 s"),
        ("/continue/", "bytes around the 262,144 that are expected"),
        ("/drip-headers/", "bytes came in 0 s"),
        ("/verbose/", r"SSH-2.0-\x1b[2J"),
        ("/far/", "which is not https"),
        ("/missing/", "the server answers with status 404"),
        ("/nowhere/", "the server answers with status 302"),
        ("/insecure/", "leads to http://example.org/images.gz, which is not https"),
        ("/local/", "leads to file:///etc/passwd, which is not https"),
        ("/misdirected/", "Invalid IPv6 URL"),
        ("/loop/", "more than 5 redirects"),
        ("/garbage/", r"\x16\x03\x01 not HTTP"),
        ("/silent/", "Remote end closed connection without response"),
    ],
)
def test_what_is_not_right_leaves_nothing_behind(server: str, tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "made" / "for it", server + path)
    assert str(caught.value).startswith(f"{server}{path}images.gz: ")
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert list(tmp_path.iterdir()) == []


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:9/images\.gz: Connection refused$"):
        fetch(tmp_path, "http://127.0.0.1:9/")


@pytest.mark.parametrize("mirror", ["http://127.0.0.1:9/", "ftp://example.org/", "file:///etc/"])
def test_only_https_is_spoken(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(DataError, match=r"which is not https$"):
        fetch_file(FILE, [mirror], tmp_path)


def test_loopback_means_this_machine(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"which is not https$"):
        fetch(tmp_path, "http://127.0.0.1.example.org/")


def test_mirrors_are_tried_in_order(server: str, tmp_path: Path) -> None:
    fetch(tmp_path, f"{server}/missing/", f"{server}/wrong/", f"{server}/good/", f"{server}/stall/")
    assert (tmp_path / "images.gz").read_bytes() == CONTENT


def test_every_mirror_is_blamed(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/missing/images\.gz: .* 404; http.*/loop/images\.gz: more than"):
        fetch(tmp_path, f"{server}/missing/", f"{server}/loop/")


def test_progress_counts_up_to_all_bytes(server: str, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    fetch(tmp_path, f"{server}/good/", on_download=lambda *news: heard.append(news))
    counts = [done for _, done, _ in heard]
    assert {(name, total) for name, _, total in heard} == {("images.gz", FILE.size)}
    assert (counts[0], counts[-1]) == (0, FILE.size)
    assert counts == sorted(counts)


def test_an_interrupted_download_leaves_nothing_behind(server: str, tmp_path: Path) -> None:
    def interrupt(_: str, done: int, __: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / "new", f"{server}/good/", on_download=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_eight_at_once(server: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(fetch, tmp_path / "new", f"{server}/good/") for _ in range(8)]
    assert {result.result() for result in results} == {tmp_path / "new" / "images.gz"}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["images.gz"]
    assert (tmp_path / "new" / "images.gz").read_bytes() == CONTENT


def test_a_disk_that_takes_nothing_is_not_the_mirrors_fault(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"/file: File exists$"):
        fetch(tmp_path / "file", f"{server}/good/", f"{server}/good/")


class TestPlacing:
    """What a block makes gets its name at the block's end, or goes."""

    def test_a_file_replaces_another(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("old")
        with placing(tmp_path / "x") as temporary:
            temporary.write_text("new")
            assert (tmp_path / "x").read_text() == "old"
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "new"}

    def test_a_folder_arrives_with_its_files(self, tmp_path: Path) -> None:
        with placing(tmp_path / "new" / "x") as temporary:
            temporary.mkdir()
            (temporary / "a").write_text("1")
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["x"]
        assert (tmp_path / "new" / "x" / "a").read_text() == "1"

    def test_a_folder_replaces_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "old").write_text("1")
        with pytest.raises(OSError), placing(tmp_path / "x") as temporary:
            temporary.mkdir()
        assert [path.name for path in tmp_path.rglob("*")] == ["x", "old"]

    @pytest.mark.parametrize("in_folder", [True, False])
    def test_a_failure_leaves_the_folders_that_were_there(self, tmp_path: Path, in_folder: bool) -> None:
        def fail(temporary: Path) -> None:
            if in_folder:
                temporary.mkdir()
            (temporary / "a" if in_folder else temporary).write_text("half")
            raise ValueError

        (tmp_path / "kept").mkdir()
        with pytest.raises(ValueError), placing(tmp_path / "kept" / "made" / "x") as temporary:
            fail(temporary)
        assert [path.name for path in tmp_path.rglob("*")] == ["kept"]
