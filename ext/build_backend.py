"""The build backend: meson-python, with editable installs that run nothing when imported.

meson-python's own editable installs call ninja on every import, from an environment that
pip has deleted by then. Here `pip install -e .` puts the compiled module beside the Python
files and the checkout onto the path; after a change to the C, run it again: only what
changed is compiled. Wheels and source distributions are meson-python's, untouched.
"""

import base64
import hashlib
import tempfile
import zipfile
from pathlib import Path

from mesonpy import build_sdist, build_wheel, get_requires_for_build_sdist, get_requires_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

ROOT = Path(__file__).resolve().parent.parent


def get_requires_for_build_editable(config_settings: dict[str, str] | None = None) -> list[str]:
    """What a wheel needs, since one is built on the way."""
    return list(get_requires_for_build_wheel(config_settings))


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, str] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Compile, copy the extension into the checkout, and make a wheel that points there (PEP 660)."""
    settings = {"build-dir": "build/editable", **(config_settings or {})}
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / build_wheel(folder, settings)
        with zipfile.ZipFile(wheel) as built:
            contents = {name: built.read(name) for name in built.namelist()}
    for name, content in contents.items():
        if name.endswith((".so", ".pyd")):
            _replace(ROOT / name, content)
    kept = {
        name: content
        for name, content in contents.items()
        if ".dist-info/" in name and not name.endswith("/RECORD")
    }
    kept["cnnctl.pth"] = f"{ROOT}\n".encode()
    (record,) = (name for name in contents if name.endswith("/RECORD"))
    kept[record] = _make_record(kept, record)
    with zipfile.ZipFile(Path(wheel_directory) / wheel.name, "w") as editable:
        for name, content in kept.items():
            editable.writestr(name, content)
    return wheel.name


def _replace(path: Path, content: bytes) -> None:
    """Write a new file rather than into the old one, which a running process may have mapped."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _make_record(contents: dict[str, bytes], record: str) -> bytes:
    lines = []
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{record},,\n"]).encode()
