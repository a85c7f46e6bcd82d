"""What a base needs, beside a kernel with overlayfs: `check`, machine_prepared and `status` look for the same.

It is looked for in the base, where it counts: what a layer brings is not there when the machine has to be helped.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from pyinfra_overlaymig.format.paths import PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PYTHON_VERSION: Final = (3, 10)
PYTHON_MODULES: Final = ("ctypes", "fcntl", "gzip", "hashlib", "json", "select", "signal", "tarfile")
"""What the runner imports; python3-minimal lacks some of them."""
OVERLAY: Final = "overlayfs in the kernel"


class Need(NamedTuple):
    """A program, and the Debian package that has it."""

    program: str
    package: str

    def __str__(self) -> str:
        return f"{self.program} (package {self.package})"


PYTHON: Final = Need("python3", "python3")
PROGRAMS: Final = (
    PYTHON,
    *(
        Need(f"s6-{name}", "s6")
        for name in (
            *("svscan", "supervise", "svscanctl", "svlink", "svunlink"),
            *("svstat", "svok", "svc", "svwait", "svdt"),
            *("log", "notifyoncheck", "envdir", "setuidgid"),
        )
    ),
)
PACKAGES: Final = tuple(sorted({need.package for need in PROGRAMS}))


class Unfit(NamedTuple):
    """Why no migration can be applied to a machine as it is, and what to do about that."""

    why: str
    hint: str


NO_DATA: Final = Unfit("there is no /data", "mount the machine's persistent volume at /data")
NO_VOLUME: Final = Unfit(
    "/data is no volume: it lies on an overlay, which takes no layers on top",
    "mount a volume there, as `docker run -v NAME:/data` does",
)
NOT_BOOTED: Final = Unfit(
    "the runner has not booted this machine: what a migration changes would be gone with its next restart",
    "let it boot through `system-migrate boot s6-svscan /run/service`, as the Dockerfile's image does, and restart it",
)


def base_alone(generation: int) -> Unfit:
    """Its current generation does not run: it could not be assembled, or the runner has not booted the machine."""
    return Unfit(
        f"generation {generation} is current, and does not run here: the base runs alone",
        "restart the machine through `system-migrate boot`; its console says what is wrong with that generation",
    )


def missing_programs(root: str = "") -> list[Need]:
    """Those that are in no directory of PATH below ``root``."""
    return [need for need in PROGRAMS if not any(_is_program(f"{root}{top}/{need.program}") for top in PATH.split(":"))]


def _is_program(path: str) -> bool:
    # A link may be absolute, and then leads out of another root.
    return os.path.islink(path) or (os.path.isfile(path) and os.access(path, os.X_OK))


def missing_modules() -> list[str]:
    """Those that this python lacks."""
    from importlib.util import find_spec

    return [name for name in PYTHON_MODULES if find_spec(name) is None]


def missing_python() -> str:
    """What is wrong with this python for a runner, in words; nothing where it will do."""
    import sys

    if sys.version_info[:2] < PYTHON_VERSION:
        return f"python3 of at least {'.'.join(map(str, PYTHON_VERSION))}"
    lacking = missing_modules()
    return f"{PYTHON}, whose {', '.join(lacking)} is not there" if lacking else ""


def packages(missing: list[str]) -> list[str]:
    """The packages that would bring what ``status`` or ``check`` calls missing."""
    return sorted({need.package for need in PROGRAMS for one in missing if one.startswith(str(need))})
