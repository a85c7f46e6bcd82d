"""apply [--wait] [--confirm SECONDS] BUNDLE: one migration, as one transaction. The bundle is on standard input,
whatever it is called. With --wait, a machine that is busy is waited for, and what it does is shown.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import STAGING
from pyinfra_overlaymig.runner import application, bundle, confirm, files, store
from pyinfra_overlaymig.runner.say import usage

open_arguments = bundle.open_file


def main(arguments: list[str]) -> int:
    wait, seconds, last = options(
        arguments, "apply takes one bundle", "system-migrate apply FILE, or - for standard input"
    )
    del last
    store.layout()
    incoming = f"{STAGING}/.incoming.{os.getpid()}"
    try:
        return application.apply(bundle.receive(incoming), seconds, wait=wait)
    finally:
        files.drop(incoming)


def options(arguments: list[str], what: str, hint: str) -> tuple[bool, int | None, str]:
    """Whether to wait, the seconds for a confirmation, and the one argument; leaves with 100 on anything else."""
    wait, seconds, rest = False, None, list(arguments)
    while len(rest) > 1:
        option = rest.pop(0)
        if option == "--wait":
            wait = True
        elif option == "--confirm":
            seconds = confirm.seconds(rest.pop(0))
        else:
            raise usage(what, hint)
    if len(rest) != 1 or rest[0].startswith("--"):
        raise usage(what, hint)
    return wait, seconds, rest[0]
