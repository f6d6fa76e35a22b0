"""Plants faults in kernels, runs and readers, one at a time, and demands that every one is found.

    python -m tests.mutants [NAME ...] [--harness "MODULE ARGUMENT ..."]

Works on a copy of the tree, with build directories of its own: a copied one would still know the way back
to the tree it was configured in. For each fault: apply the patch, compile what it touches, run the harness
that its promise names, put everything back. Only a failure that the harness names, a crash, a hang or a
sanitizer's report counts. A patch that does not apply or compile or that changes nothing, and a harness that
fails on the unpatched tree or for another reason, are errors and end the run.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.mutants.patches import Mutant, PatchError, read_mutants

ROOT = Path(__file__).parents[2]
HARNESS = "tests.torture --slice --first"
KERNEL_ROWS = "K"
"""For a fault in a kernel any of them will do; the promises on runs and input name theirs."""
MEMORY_HARNESS = "tests.torture --slice --first K6"
"""On sanitized kernels, where the other rows would take long and show nothing new."""
HARNESS_TIMEOUT_S = 1800
JOBS = 2
OMITTED = shutil.ignore_patterns(".*", "__pycache__", "build", "runs", "dist", "data", "*.so")
FAILURE = re.compile(r"^(\S+) FAILED|^FAILED (\S+)", re.M)
"""How torture and pytest name what failed."""
REPORT = re.compile(r"ERROR: AddressSanitizer: (\S+)|(runtime error: .*)")
DEAD_WORKER = "BrokenProcessPool"


class HarnessError(Exception):
    """The harness, or what it needs, is broken: neither a kill nor a survivor."""


class Workshop:
    """A copy of the tree that faults are planted in, and what it takes to undo them."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.kept = folder / "tree", folder / "kept"
        shutil.copytree(ROOT, self.tree, ignore=lambda path, names: omit(Path(path), names))
        shutil.copytree(self.tree, self.kept)

    def build_first(self, sanitize: bool) -> None:
        """Configure and compile one kind of kernels, and remember the result."""
        build = self.tree / name_build(sanitize)
        options = [f"-Dsanitize={str(sanitize).lower()}", "-Dkernel_optimization=1"]
        run(["meson", "setup", build.name, *options], self.tree)
        self.build(sanitize)
        shutil.copytree(build, self.kept / build.name)

    def build(self, sanitize: bool) -> bytes:
        """Compile what changed and put it where Python finds it; returns the module."""
        build = self.tree / name_build(sanitize)
        run(["ninja", f"-j{JOBS}"], build)
        (module,) = (build / "ext").glob("_kernels.*.so")
        place = self.tree / "cnnctl" / "backends" / module.name
        place.unlink(missing_ok=True)
        shutil.copy2(module, place)
        return place.read_bytes()

    def plant(self, mutant: Mutant) -> None:
        before = self.build(mutant.sanitize)
        mutant.apply(self.tree)
        compiled = any(file.startswith("ext/") for file in mutant.files)
        if compiled != (self.build(mutant.sanitize) != before):
            raise HarnessError(f"{mutant.path.name} changes something else than it touches")

    def undo(self, mutant: Mutant) -> None:
        """Files and objects with their old times, so that nothing is compiled again."""
        for file in mutant.files:
            shutil.copy2(self.kept / file, self.tree / file)
        build = name_build(mutant.sanitize)
        shutil.rmtree(self.tree / build)
        shutil.copytree(self.kept / build, self.tree / build)

    def try_harness(self, harness: str, sanitize: bool) -> str | None:
        """What failed, or None."""
        way = ["-m", "tests.sanitized"] if sanitize else ["-m"]
        command = [sys.executable, *way, *shlex.split(harness)]
        environment = {**os.environ, "PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = run_group(command, self.tree, environment)
        except subprocess.TimeoutExpired:
            return "a hang"
        return judge(done)


def choose_harness(mutant: Mutant) -> str:
    """The rows that may find it."""
    if mutant.sanitize:
        return MEMORY_HARNESS
    return f"{HARNESS} {KERNEL_ROWS if mutant.promise.startswith(KERNEL_ROWS) else mutant.promise}"


def omit(folder: Path, names: list[str]) -> set[str]:
    """Of the root, whatever is no source; below it, what Python or a build has left."""
    ignored = OMITTED(str(folder), names)
    return ignored if folder == ROOT else ignored - {"build", "runs", "dist", "data"}


def name_build(sanitize: bool) -> str:
    return "build-sanitize" if sanitize else "build-plain"


def run(command: list[str], folder: Path) -> None:
    """A step that may not fail."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"{shlex.join(command)}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def run_group(
    command: list[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Like subprocess.run, but a command that hangs takes its children with it."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=HARNESS_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def judge(done: subprocess.CompletedProcess[str]) -> str | None:
    """The name of what failed, None if nothing did."""
    if done.returncode == 0:
        return None
    report = REPORT.search(done.stdout)
    if report:
        return f"sanitizer: {report[1] or report[2]}"
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    names = dict.fromkeys(name for pair in FAILURE.findall(done.stdout) for name in pair if name)
    if not names and DEAD_WORKER in done.stdout:
        return "a crash"
    if not names:
        raise HarnessError(f"exit code {done.returncode} and no failure named:\n{done.stdout[-4000:]}")
    return ", ".join(names)


def choose(names: list[str]) -> list[Mutant]:
    """By number or name; all if none is given."""
    mutants = read_mutants()
    unknown = set(names) - {key for mutant in mutants for key in (mutant.number, mutant.name)}
    if unknown:
        raise PatchError(f"no mutant {', '.join(sorted(unknown))} in {mutants[0].path.parent}")
    return [mutant for mutant in mutants if not names or {mutant.number, mutant.name} & set(names)]


ROW = "{:3} {:26} {:32} {:9} {:>8}  {}"


def try_mutants(mutants: list[Mutant], harness: str | None) -> int:
    """Prints the table; returns how many survived."""
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="cnnctl-mutants-") as folder:
        workshop = Workshop(Path(folder))
        for sanitize in sorted({mutant.sanitize for mutant in mutants}):
            workshop.build_first(sanitize)
        harnesses = [harness or choose_harness(mutant) for mutant in mutants]
        kinds = [mutant.sanitize for mutant in mutants]
        for chosen, sanitize in sorted(set(zip(harnesses, kinds, strict=True))):
            workshop.build(sanitize)
            failed = workshop.try_harness(chosen, sanitize)
            if failed:
                raise HarnessError(f"{failed} without any fault planted ({name_build(sanitize)})")
        print(ROW.format("", "fault", "file", "expected", "seconds", "caught by"), flush=True)
        for mutant, chosen in zip(mutants, harnesses, strict=True):
            workshop.plant(mutant)
            start = time.monotonic()
            caught = workshop.try_harness(chosen, mutant.sanitize)
            seconds = f"{time.monotonic() - start:.1f}"
            workshop.undo(mutant)
            survivors += caught is None
            columns = (mutant.number, mutant.name, " ".join(mutant.files), mutant.promise, seconds)
            print(ROW.format(*columns, caught or "SURVIVED"), flush=True)
    return survivors


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="numbers or names; all if none is given")
    parser.add_argument("--harness", help="what has to fail, as a module and its arguments")
    arguments = parser.parse_args()
    try:
        mutants = choose(arguments.names)
        survivors = try_mutants(mutants, arguments.harness)
    except (PatchError, HarnessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(mutants) - survivors} of {len(mutants)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
