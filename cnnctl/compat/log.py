"""What the courses' trainers print: lines of the logger `cnnctl.compat`, at level INFO, on stderr.

A course's user expects lines on the screen, a library must not print: so they are log records, and
`logging.getLogger("cnnctl.compat")` silences, formats or redirects them. Nothing else logs here.
"""

import logging
import sys
from collections.abc import Callable
from typing import TextIO

OnLine = Callable[[str], None]
"""Hears each line that the course would print."""

LOGGER = logging.getLogger("cnnctl.compat")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is when a line comes: notebooks and test runners exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


if not LOGGER.handlers:
    LOGGER.addHandler(_StderrHandler())
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # or an application that logs as well would show each line twice


def log_line(line: str) -> None:
    """Log one line; the default of every `on_line`."""
    LOGGER.info("%s", line)


def log_download(file_name: str, done_bytes: int, total_bytes: int) -> None:
    """Say of each file, once, that it is on its way."""
    if done_bytes == 0:
        log_line(f"downloading {file_name}, {total_bytes:,} bytes")
