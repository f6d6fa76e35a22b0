"""How much memory a run will need, told before its first step.

What the process holds already, plus what the plan has reserved but not touched yet, plus
the copies that writing a checkpoint makes. Measures and adds; reserves nothing.
"""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

from cnnctl.nn.plan import Plan

STATUS = Path("/proc/self/status")
CHECKPOINT_COPIES = 3
"""Of the state, at the same time: the tensors in natural layout, the file, and the file being sealed."""


def predict_peak_bytes(plan: Plan) -> int:
    """Most bytes the process will have resident, if it trains with this plan and saves checkpoints.

    Exact to a few percent for `fast`, which allocates nothing in a step; the other backends
    need buffers of numpy's besides.
    """
    release_unused_memory()
    state = plan.state_bytes
    untouched = plan.memory_bytes - plan.touched_bytes
    coming = read_resident_bytes() + untouched + CHECKPOINT_COPIES * state
    return max(read_peak_bytes(), coming)


def release_unused_memory() -> None:
    """Give back what loading has left behind: it would be counted, and then used again."""
    gc.collect()
    with suppress(AttributeError, OSError):  # of the C library; not every one has it
        ctypes.CDLL(None).malloc_trim(0)


def read_peak_bytes(status: Path = STATUS) -> int:
    """Most bytes this program has had resident so far.

    Linux tells it apart from that of whoever started the program; the usage that other systems
    count does not.
    """
    with suppress(OSError, KeyError):
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024  # kibibytes everywhere else


def read_resident_bytes() -> int:
    """Bytes this process has resident now; the most so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return read_peak_bytes()
    return pages * resource.getpagesize()
