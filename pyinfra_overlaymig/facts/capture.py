"""Reads what a migration or a command changed on a machine, and who did it; it must change nothing."""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib

from pyinfra.api import FactBase, FactProcessError, QuoteString, StringCommand

from pyinfra_overlaymig.format.capture import Capture, parse
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.paths import PROGRAM


class AuditCapture(FactBase[Capture | None]):
    """
    Returns what a migration, or a command under ``audit_capture``, changed and who did it; None if there is no record.

    + id: the migration, as its folder is called, or the name of the capture

    **Example:**

    .. code:: python

        from pyinfra_overlaymig.facts import AuditCapture

        capture = host.get_fact(AuditCapture, id="20240206-001_add_postgresql")
        for change in capture.changes:
            print(change.path, [process.program for process in capture.chain(change.by)])

    .. code:: json

        {
            "audit": "on",
            "events": 33297,
            "lost": 0,
            "state": ["/var/lib/postgresql"],
            "proposed_state": [],
            "changes": [
                {
                    "path": "/etc/motd", "what": "changed", "kind": "f", "owner": "0", "size": 286,
                    "package": "base-files", "by": 4
                }
            ],
            "processes": [
                {"number": 4, "parent": 0, "pid": 812, "program": "/usr/bin/dash", "arguments": ["/bin/sh", "…"]}
            ],
            "also": [{"path": "/etc/motd.dpkg-new", "what": "transient", "by": 4}],
            "unexplained": []
        }
    """

    def command(self, id: str) -> StringCommand:
        # Exit 4: there is no such record, which is an answer. Packed, as names need not be UTF-8.
        return StringCommand(
            "t=$(mktemp) && {", PROGRAM, "diff --raw", QuoteString(id),
            '>"$t" || [ $? = 4 ]; } && gzip -c "$t" | base64 -w 0 && echo; rc=$?; rm -f "$t"; exit $rc',
        )  # fmt: skip

    @staticmethod
    def default() -> Capture | None:
        return None

    def process(self, output: list[str]) -> Capture | None:
        packed = "".join(output)
        if not packed:
            raise FactProcessError("the capture has no end")
        try:
            text = gzip.decompress(base64.b64decode(packed, validate=True)).decode("utf-8", "surrogateescape")
            return parse(text) if text else None
        except (FormatError, OSError, EOFError, zlib.error, binascii.Error) as error:
            raise FactProcessError(f"the capture cannot be read: {error}") from error
