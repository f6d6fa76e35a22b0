"""`python -m cnnctl`: the command line, nothing else."""

import sys

from cnnctl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
