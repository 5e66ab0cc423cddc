"""`python -m visiontokens`, which is how `torchrun -m visiontokens` starts every process of a run."""

import sys

from visiontokens.cli import main

if __name__ == "__main__":
    sys.exit(main())
