"""The table of promises: what each checks, how many cases the whole of it has, and how many a slice."""

from collections.abc import Callable
from typing import NamedTuple

from tests.faults import damage, disks, divergence, interrupts, kills, power, starts
from tests.faults import memory as footprint
from tests.torture import (
    arithmetic,
    checkpoints,
    configs,
    datafiles,
    downloads,
    environment,
    hostile,
    images,
    memory,
    plans,
    runfiles,
    sizes,
    special,
    threads,
)
from tests.torture.tally import Tally


class Row(NamedTuple):
    """One promise, or a part of one.

    Attributes:
        check: takes seed, number of the case and tally; raises Mismatch when the promise is broken.
        cases: of the whole row; those that show too little are not counted.
        slice: of the short run among the ordinary tests; 0 where time is measured or memory is large.
        jobs: processes it may be shared among, 0 for as many as there are cores.
    """

    name: str
    promise: str
    check: Callable[[int, int, Tally], None]
    cases: int
    slice: int
    jobs: int = 0


ROWS = {
    row.name: row
    for row in (
        Row("K1", "exact on integers", arithmetic.check_exactness, 1_000_000, 6000),
        Row("K2", "rounding within its bounds", arithmetic.check_rounding, 1_000_000, 5000),
        Row("K2-fused", "fused as one after the other", arithmetic.check_fused, 10_000, 1200),
        Row("K2-others", "norms, losses, updates as naive", arithmetic.check_others, 10_000, 800),
        Row("K2-plans", "networks as layer by layer", plans.check_plan, 10_000, 300),
        Row("K3", "gradients are adjoint", arithmetic.check_adjoint, 100_000, 2000),
        Row("K4", "special values by the policy", special.check_specials, 5000, 300),
        Row("K5", "threads change nothing", threads.check_threads, 20_000, 2000),
        Row("K5-training", "nor in whole trainings", threads.check_training, len(threads.TRAININGS), 1, 1),
        Row("K5-fork", "a forked child goes on", threads.check_fork, 1000, 50),
        Row("K6", "no stray access, any array", memory.check_forms, 200_000, 4000),
        Row("K7", "sizes never overflow", sizes.check_sizes, 20_000, 1500),
        Row("K7-large", "and large ones are computed", sizes.check_large, 3, 0, 1),
        Row("K8", "float mode left alone", environment.check_float_mode, 20_000, 1000),
        Row(
            "K8-cost",
            "subnormals cost nothing",
            environment.check_subnormal_cost,
            len(environment.COSTS),
            0,
            1,
        ),
        Row("R1", "killed, a run ends as it would", kills.check_kill, 640, 24),
        Row("R2", "a power cut loses nothing saved", power.check_power_cut, 5000, 60),
        Row("R3", "a bad disk: one line, no loss", disks.check_disk, 9000, 60),
        Row("R4", "damaged checkpoints are refused", damage.check_damage, damage.SECTORS, 6, 1),
        Row("R5", "Ctrl-C and SIGTERM stop cleanly", interrupts.check_interrupt, 200, 16),
        Row("O1", "runs never collide", starts.check_starts, 20, 4),
        Row("O2", "memory is known beforehand", footprint.check_memory, len(footprint.CASES), 3, 1),
        Row("O3", "divergence stops and is named", divergence.check_divergence, 2000, 60),
        Row("S1-yaml", "bad configs are refused", configs.check_yaml, 1_000_000, 2000),
        Row("S1-idx", "bad IDX files are refused", datafiles.check_idx, 1_000_000, 6000),
        Row("S1-cifar", "bad CIFAR-10 batches are refused", datafiles.check_cifar, 1_000_000, 5000),
        Row("S1-archive", "bad archives are refused", datafiles.check_archive, 1_000_000, 4000),
        Row("S1-image", "bad images are refused", images.check_image, 1_000_000, 4000),
        Row("S1-checkpoint", "bad checkpoints are refused", checkpoints.check_checkpoint, 1_000_000, 8000),
        Row("S1-run", "damaged run files are refused", runfiles.check_run, 200_000, 500),
        Row("S2", "hostile files are refused", hostile.check_hostile, hostile.CASES, hostile.CASES, 1),
        Row("S3", "downloads are right or absent", downloads.check_download, 5000, 80),
    )
}
