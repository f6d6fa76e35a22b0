"""`cnnctl` and `python -m cnnctl`: the command line as a process of its own.

Ctrl-C before the command has begun, or after it has ended, kills the process and says nothing: there is
nothing to clear up, and no traceback to be read.
"""

import sys
from signal import SIG_DFL, SIGINT, signal


def main() -> None:
    """Run the command and leave with its exit code."""
    signal(SIGINT, SIG_DFL)
    from cnnctl.cli.main import main as run_command

    sys.exit(run_command())


if __name__ == "__main__":
    main()
