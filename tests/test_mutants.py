"""The planted faults are whole: every patch has its header and still applies. `make mutants` runs them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mutants.__main__ import HarnessError, choose, choose_harness, judge
from tests.mutants.patches import FOLDER, Mutant, PatchError, read_mutant, read_mutants
from tests.torture.__main__ import find_rows
from tests.torture.rows import ROWS

ROOT = Path(__file__).parents[1]
MUTANTS = read_mutants()

pytestmark = pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")


def test_there_are_enough_and_they_are_numbered() -> None:
    assert len(MUTANTS) >= 25
    assert [mutant.number for mutant in MUTANTS] == [f"{i:02}" for i in range(1, len(MUTANTS) + 1)]
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.promise for mutant in MUTANTS} == {row.partition("-")[0] for row in ROWS}
    assert all(re.fullmatch(r"\d{2,3}-[a-z0-9-]+", path.stem) for path in FOLDER.glob("*.patch"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_patch_applies_and_changes_what_it_touches(mutant: Mutant, tmp_path: Path) -> None:
    before = {}
    for file in mutant.files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        before[file] = Path(shutil.copy2(ROOT / file, tmp_path / file)).read_text()
    mutant.apply(tmp_path)
    assert before
    assert all((tmp_path / file).read_text() != text for file, text in before.items())


def test_a_patch_that_does_not_apply_is_an_error(tmp_path: Path) -> None:
    mutant = MUTANTS[0]
    (tmp_path / "ext").mkdir()
    (tmp_path / mutant.files[0]).write_text("something else\n")
    with pytest.raises(PatchError, match="does not apply"):
        mutant.apply(tmp_path)


def test_a_patch_without_a_header_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "01-bare.patch"
    path.write_text("--- a/ext/conv.c\n+++ b/ext/conv.c\n")
    with pytest.raises(PatchError, match="does not begin with what it breaks"):
        read_mutant(path)


def test_a_fault_is_looked_for_by_the_rows_of_its_promise() -> None:
    for mutant in MUTANTS:
        name = choose_harness(mutant).split()[-1]
        assert find_rows(name)
        assert name == mutant.promise or all(row.startswith("K") for row in find_rows(name))
        assert all(file.startswith("cnnctl/") for file in mutant.files if mutant.promise.startswith("S"))


def test_mutants_are_chosen_by_number_or_name() -> None:
    assert choose(["02", MUTANTS[0].name]) == MUTANTS[:2]
    assert choose([]) == MUTANTS
    with pytest.raises(PatchError, match="no mutant 00"):
        choose(["00"])


@pytest.mark.parametrize(
    ("code", "output", "verdict"),
    [
        (0, "", None),
        (3, "K1 FAILED case 7: wrong\nK5-fork FAILED case 2: hung", "K1, K5-fork"),
        (
            1,
            "FAILED tests/backends/test_conv.py::test_it - Assertion",
            "tests/backends/test_conv.py::test_it",
        ),
        (-11, "", "SIGSEGV"),
        (
            1,
            "==7==ERROR: AddressSanitizer: heap-buffer-overflow on address",
            "sanitizer: heap-buffer-overflow",
        ),
        (1, "ext/x.c:3:1: runtime error: misaligned", "sanitizer: runtime error: misaligned"),
        (1, "concurrent.futures.process.BrokenProcessPool: A process ended", "a crash"),
    ],
)
def test_only_a_named_failure_a_crash_or_a_report_is_a_kill(code: int, output: str, verdict: str) -> None:
    assert judge(subprocess.CompletedProcess([], code, output)) == verdict


def test_a_harness_that_breaks_is_no_kill() -> None:
    with pytest.raises(HarnessError, match="exit code 1 and no failure named"):
        judge(subprocess.CompletedProcess([], 1, "Traceback: no module named torture"))
