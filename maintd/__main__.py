"""`python -m maintd` is `maintd`."""

import sys

from maintd.cli import main

sys.exit(main())
