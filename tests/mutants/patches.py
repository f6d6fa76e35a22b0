"""Planted faults as they lie on disk: patches whose first lines say what they break.

    A sentence or two on what goes wrong, and where.

    Caught by: K1
    Build: sanitize

    --- a/ext/conv.c
    ...

`Build: sanitize` is there only where a fault shows on sanitized kernels alone. Reads and applies patches;
builds and runs nothing.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent

HEADER = re.compile(
    r"(?P<fault>.+?)\n\nCaught by: (?P<promise>[A-Z]\d+)\n(?P<sanitize>Build: sanitize\n)?\n(?=--- a/)", re.S
)
TOUCHED = re.compile(r"^\+\+\+ b/(\S+)$", re.M)


class PatchError(Exception):
    """A patch that has no header or does not apply."""


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes:
        promise: what is expected to catch it, a promise about kernels (K), runs (R, O) or input (S).
        sanitize: whether it takes the sanitized kernels to see it.
        files: what it touches, relative to the root.
    """

    path: Path
    fault: str
    promise: str
    sanitize: bool
    files: tuple[str, ...]

    @property
    def number(self) -> str:
        return self.path.stem.partition("-")[0]

    @property
    def name(self) -> str:
        return self.path.stem.partition("-")[2]

    def apply(self, tree: Path) -> None:
        """To the tree. Lines may have moved; they may not have changed."""
        command = ["patch", "-p1", "--fuzz=0", "--forward", "--no-backup-if-mismatch", f"--input={self.path}"]
        patched = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        if patched.returncode:
            raise PatchError(f"{self.path.name} does not apply:\n{patched.stdout}{patched.stderr}")


def read_mutant(path: Path) -> Mutant:
    text = path.read_text()
    header = HEADER.match(text)
    if header is None:
        raise PatchError(
            f"{path.name} does not begin with what it breaks and a line Caught by: K1 or the like"
        )
    return Mutant(
        path, header["fault"], header["promise"], bool(header["sanitize"]), tuple(TOUCHED.findall(text))
    )


def read_mutants() -> list[Mutant]:
    """All of them, in order."""
    return sorted(map(read_mutant, FOLDER.glob("*.patch")), key=lambda mutant: int(mutant.number))
