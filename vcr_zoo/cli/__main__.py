"""python -m vcr_zoo.cli: the same as vcr-zoo."""

import sys

from . import main

sys.exit(main())
