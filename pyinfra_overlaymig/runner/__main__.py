"""Where the launcher starts Python: finds the package around this directory, whichever version the way here led to."""

import os
import sys

_OLDEST = (3, 10)

if sys.version_info < _OLDEST:
    sys.stderr.write(
        f"system-migrate: the base has Python {sys.version_info[0]}.{sys.version_info[1]}\n"
        f"  hint: rebuild the image with Python {_OLDEST[0]}.{_OLDEST[1]} or newer\n"
    )
    sys.exit(111)

_here = os.path.dirname(__file__)
if not _here.startswith("/proc/"):
    # The way here is a link that another version may replace at any moment.
    _here = os.path.realpath(_here)
sys.path[0] = os.path.dirname(os.path.dirname(_here))

from pyinfra_overlaymig.runner.cli import main  # noqa: E402 - it is found only now

main()
