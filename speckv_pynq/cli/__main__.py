"""`python -m speckv_pynq.cli`, for where the console script is not on PATH."""

import sys

from speckv_pynq.cli.app import main

sys.exit(main())
