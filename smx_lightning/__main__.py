"""``python -m smx_lightning`` is ``smx-lightning``."""

import sys

from smx_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
