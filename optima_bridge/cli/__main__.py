"""``python -m optima_bridge.cli`` is ``bridge``."""

import sys

from optima_bridge.cli import main

sys.exit(main())
