"""The C kernels behind the contract: NHWC inside, channels padded to a cache line.

These files validate, allocate and translate layouts; every number is computed in `ext/`.
"""

from cnnctl.backends.fast.backend import COMPILER, INSTRUCTION_SETS, FastBackend

__all__ = ["COMPILER", "INSTRUCTION_SETS", "FastBackend"]
