"""`python -m culm`: the same as the command `culm`."""

import sys

from culm.cli import main

if __name__ == "__main__":
    sys.exit(main())
