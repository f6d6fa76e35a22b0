"""Threads a container grants: quotas of both control group versions, and the affinity mask."""

import os
from pathlib import Path

import pytest

from cnnctl.backends import cpu


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    file = tmp_path / "cgroup"
    file.write_text("4:cpuset:/\n3:cpu,cpuacct:/outer/inner\n0::/outer/inner\n")
    return file


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_without_control_groups_there_is_no_quota(tmp_path: Path, membership: Path) -> None:
    assert cpu.cpu_quota(tmp_path / "none", membership) is None
    assert cpu.cpu_quota(tmp_path / "none", tmp_path / "missing") is None


def test_version_2(tmp_path: Path, membership: Path) -> None:
    write(tmp_path / "outer/inner", cpu__max="150000 100000\n")
    assert cpu.cpu_quota(tmp_path, membership) == 1.5


def test_the_smallest_of_the_ancestors_wins(tmp_path: Path, membership: Path) -> None:
    write(tmp_path, cpu__max="max 100000\n")
    write(tmp_path / "outer", cpu__max="50000 100000\n")
    write(tmp_path / "outer/inner", cpu__max="400000 100000\n")
    assert cpu.cpu_quota(tmp_path, membership) == 0.5


def test_version_1(tmp_path: Path, membership: Path) -> None:
    write(tmp_path / "cpu", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert cpu.cpu_quota(tmp_path, membership) is None
    write(tmp_path / "cpu/outer/inner", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    assert cpu.cpu_quota(tmp_path, membership) == 3


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (0.5, 1), (1.5, 2), (3.0, 3), (64.0, 4)])
def test_threads_respect_quota_and_affinity(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int
) -> None:
    monkeypatch.setattr(cpu, "cpu_quota", lambda: quota)
    monkeypatch.setattr(cpu, "allowed_processors", lambda: 4)
    assert cpu.available_threads() == threads


def test_this_machine_allows_at_least_one_thread() -> None:
    assert 1 <= cpu.available_threads() <= (os.cpu_count() or 1)
    assert cpu.cpu_model()
