"""``python -m heptapod``."""

import sys

from heptapod.cli import main

if __name__ == "__main__":
    sys.exit(main())
