"""A headless browser, spoken to through a pipe: enough to load a page, press keys, and hear its complaints.

Source of the protocol: Chrome DevTools, https://chromedevtools.github.io/devtools-protocol/.
"""

import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
END = b"\0"
MOVE_ENDS = """if True:
    import os, sys
    for i, end in enumerate(sys.argv[1:3]):
        os.dup2(int(end), 100 + i)
    os.dup2(100, 3)
    os.dup2(101, 4)
    os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads from file 3 and writes to file 4."""


def find_browser() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page that is open for a block.

    Attributes:
        complaints: what the browser has said of it: errors, warnings, exceptions.
        requests: addresses it has asked for.
    """

    def __init__(self, program: str, width: int = 1200, height: int = 900, *, dark: bool = False) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        ends = (to_browser, from_browser)
        command = [sys.executable, "-c", MOVE_ENDS, *map(str, ends), program, *OPTIONS]
        self._process = subprocess.Popen(command, pass_fds=ends, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self._count, self._buffer = 0, b""
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open(self, path: Path) -> None:
        """Load a file, to the end."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, script: str) -> Any:
        """What an expression comes to."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key, pressed and released; Tab moves the focus."""
        codes = {"Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key]
            )

    def move_pointer(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def take_picture(self, path: Path) -> None:
        """All of the page as a PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(b64decode(data))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Raises RuntimeError for what the browser refuses."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + END)
        while (answer := self._read()).get("id") != self._count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        while END not in self._buffer:
            part = os.read(self._in, 2**16)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(END)
        message: dict[str, Any] = json.loads(text)
        match message.get("method"):
            case "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(text.decode())
            case "Runtime.consoleAPICalled" if message["params"]["type"] in ("error", "warning", "assert"):
                self.complaints.append(text.decode())
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return message
