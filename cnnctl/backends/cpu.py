"""What this process may use of the machine: threads, and what the processor is.

Reads the operating system's own accounts and decides nothing. Containers limit a process
by affinity (which processors) and by quota (how much time), and both are respected: with
more threads than that, spinning workers would eat the quota of the one that computes.
"""

import os
import platform
from functools import cache
from math import ceil
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def available_threads() -> int:
    """Threads that can run at once: processors in the affinity mask, capped by the quota."""
    quota = cpu_quota()
    return max(1, min(allowed_processors(), ceil(quota) if quota else allowed_processors()))


def allowed_processors() -> int:
    """Processors this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = CGROUP_ROOT, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Processors' worth of time the container grants, or None without a limit.

    cgroup v2 keeps "quota period" in cpu.max, v1 two files in its cpu controller. Every
    ancestor's limit counts, so the smallest wins.
    """
    quotas = [_read_v2(folder) for folder in _groups(root, membership, "")]
    quotas += [_read_v1(folder) for folder in _groups(root / "cpu", membership, "cpu")]
    known = [quota for quota in quotas if quota is not None]
    return min(known) if known else None


@cache
def cpu_model() -> str:
    """The processor's name as the operating system tells it; asked for by every checkpoint."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _groups(root: Path, membership: Path, controller: str) -> list[Path]:
    """The folders of this process's group and its ancestors, for one controller."""
    folders = [root]
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = root
            for part in Path(path).parts[1:]:
                group = group / part
                folders.append(group)
    return folders


def _read_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _read_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
