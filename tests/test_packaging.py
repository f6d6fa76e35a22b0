"""What a wheel installs: every file of the package that git holds. Nothing is compiled for it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def list_tracked(folder: str) -> set[str]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a checkout: only git knows which files belong to the package")
    command = ["git", "-C", str(ROOT), "ls-files", folder]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def list_installed(build: Path) -> dict[str, str]:
    """Where meson would install each file, {py_purelib} or the like in front, by its source."""
    meson = [sys.executable, "-m", "mesonbuild.mesonmain"]
    subprocess.run([*meson, "setup", build, ROOT], capture_output=True, check=True)
    plan = json.loads((build / "meson-info" / "intro-install_plan.json").read_text())
    return {source: entry["destination"] for kind in plan.values() for source, entry in kind.items()}


def test_the_package_is_installed_whole(tmp_path: Path) -> None:
    tracked = list_tracked("cnnctl")
    plan = list_installed(tmp_path / "build")
    installed = {place.partition("}/")[2] for place in plan.values()}
    assert tracked - installed == set()
