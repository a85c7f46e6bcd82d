"""The running machines of the local lab (`overlaymig lab up -n 3`)."""

from pyinfra import logger
from pyinfra.api.exceptions import PyinfraError

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import inventory, stopped

try:
    lab = inventory()
    for name in stopped():
        logger.warning(f"{name} does not run and is left out; start it: overlaymig lab restart {name}")
except OverlaymigError as error:
    raise PyinfraError(f"{error}; {error.hint}") from error
