"""Runs a module on the sanitized kernels: `python -m tests.sanitized MODULE [ARGUMENT...]`.

For `make sanitize` and the planted faults. Starts Python anew with the address sanitizer loaded before
everything else, from the directory it is called in, and refuses kernels from anywhere else or without
the checks: a run on the ordinary kernels would pass and show nothing.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

MARK = b"__asan_init"
"""What every module that the sanitizer has compiled refers to."""

RUNTIMES = ("libasan.so", "libubsan.so")


def require_sanitized_kernels(tree: Path) -> None:
    """Exits unless the kernels that are imported lie below `tree` and check their accesses."""
    spec = importlib.util.find_spec("cnnctl.backends._kernels")
    module = Path(spec.origin).resolve() if spec and spec.origin else None
    if module is None or not module.is_relative_to(tree.resolve()):
        sys.exit(f"kernels: {module} is not below {tree}; make sanitize builds what belongs there")
    if MARK not in module.read_bytes():
        sys.exit(f"kernels: {module} is not sanitized; make sanitize builds one that is")


def find_runtimes() -> list[str]:
    """The sanitizers' own libraries, as the compiler knows them."""
    compiler = os.environ.get("CC", "gcc").split()
    paths = []
    for name in RUNTIMES:
        command = [*compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            sys.exit(f"CC: {' '.join(compiler)} has no {name}; gcc brings it")
        paths.append(path)
    return paths


def create_environment(tree: Path) -> dict[str, str]:
    """What a process needs to import the sanitized kernels of `tree`."""
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(find_runtimes()),
        # Python never frees some of what it allocates. Arrays come from malloc and not from its own
        # allocator; to remember where each was made would take most of the time.
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(tree.resolve()),
    }


def main() -> None:
    tree = Path.cwd()
    environment = create_environment(tree)
    require_sanitized_kernels(tree)
    os.execve(sys.executable, [sys.executable, "-m", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
