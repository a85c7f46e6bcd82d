"""install PACKAGE…: a migration made on the spot, numbered for today, that installs Debian packages; and its apply."""

from __future__ import annotations

import os
import re

from pyinfra_overlaymig.format.paths import STAGING
from pyinfra_overlaymig.runner import adopt, application, bundle, files, store
from pyinfra_overlaymig.runner.say import invalid, say, usage

_PACKAGE = re.compile(r"[a-z0-9.+:=~][a-z0-9.+:=~-]*")
_SCRIPT = "#!/bin/sh\nset -eu\napt-get update\napt-get install -y --no-install-recommends {}\n"


def main(arguments: list[str]) -> int:
    if not arguments:
        raise usage("install takes package names", "system-migrate install postgresql")
    for name in arguments:
        if not _PACKAGE.fullmatch(name):
            raise invalid(f"'{name}' is not a package name", "lower case letters, digits, + - . only")
    store.layout()
    incoming = f"{STAGING}/.incoming.{os.getpid()}"
    files.drop(incoming)
    files.make_dirs(incoming, mode=0o700)
    try:
        id = adopt.local_id(f"install_{arguments[0]}")
        made = adopt.write_local(incoming, id, _SCRIPT.format(" ".join(arguments)), state_auto=True)
        say(f"this is migration {id}")
        return application.apply(bundle.Bundle(incoming, *made), None)
    finally:
        files.drop(incoming)
