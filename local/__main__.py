"""`python -m local --port N --root DIR`."""

import sys

from local.emulator import main

sys.exit(main())
