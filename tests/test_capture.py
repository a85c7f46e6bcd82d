"""The record of a capture is read whole or not at all, and its proposals name what a program will go on writing to."""

from __future__ import annotations

import base64
import gzip

import pytest
from pyinfra.api import FactProcessError

from pyinfra_overlaymig.facts import AuditCapture
from pyinfra_overlaymig.format.capture import Also, Capture, Puzzle, parse
from pyinfra_overlaymig.format.errors import FormatError

TEXT = """\
record audit on
record events 12
record lost 0
record state /var/lib/declared
change A d 755 0 0 0 - - opt/a\\040b
change A f 644 0 0 3 98ea - opt/a\\040b/c -> x
change D - - - - - - - etc/issue
process 1 0 10 /usr/bin/dash /bin/sh /run/migration/install.sh
process 4 1 12 /usr/bin/rm rm /etc/issue
path 1 - opt/a\\040b
path 4 base-files etc/issue
also transient 1 opt/short
unexplained change unknown opt/a\\040b/c
end
"""


def proposed(*changes: str) -> tuple[str, ...]:
    return parse(
        "record state /var/lib/declared\n" + "".join(f"{line}\n" for line in changes) + "end\n"
    ).proposed_state()


def test_a_capture_is_read() -> None:
    """Every kind of line arrives where it belongs."""
    capture = parse(TEXT)
    assert (capture.audit, capture.events, capture.lost, capture.state) == ("on", 12, 0, ("/var/lib/declared",))
    assert [(one.path, one.what, one.size, one.package, one.by) for one in capture.changes] == [
        ("/opt/a\\040b", "added", 0, None, 1),
        ("/opt/a\\040b/c", "added", 3, None, None),
        ("/etc/issue", "deleted", 0, "base-files", 4),
    ]
    assert [one.program for one in capture.chain(4)] == ["/usr/bin/rm", "/usr/bin/dash"]
    assert capture.also == (Also("/opt/short", "transient", 1),)
    assert capture.unexplained == (Puzzle("/opt/a\\040b/c", "change", "unknown"),)
    assert capture.to_json()["changes"][2]["by"] == 4


@pytest.mark.parametrize(
    "text",
    ["", "end", TEXT.removesuffix("end\n"), TEXT + "more\n", "what 1\nend\n", "change A\nend\n", "path x - y\nend\n"],
)
def test_half_a_capture_is_none(text: str) -> None:
    with pytest.raises(FormatError) as refusal:
        parse(text)
    assert "machine_prepared" in refusal.value.hint


def test_a_name_may_hold_what_other_programs_take_for_an_end_of_line() -> None:
    capture = parse("change A f 644 0 0 3 98ea - opt/a\x0b\x85b\nend\n")
    assert [one.path for one in capture.changes] == ["/opt/a\x0b\x85b"]


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("change A d 755 101 101 0 - - var/lib/app", ("/var/lib/app",)),
        ("change A f 644 0 0 9 98ea - var/lib/app/db", ("/var/lib/app",)),
        ("change C f 644 0 0 9 98ea - srv/site/index.html", ("/srv/site",)),
        ("change A d 755 0 0 0 - - var/lib/app", ()),
        ("change D - - - - - - - var/lib/app/db", ()),
        ("change A f 644 0 0 9 98ea - var/lib/file", ()),
        ("change A f 644 0 0 9 98ea - var/lib/declared/db", ()),
        ("change A f 644 0 0 9 98ea - var/lib/dpkg/info/app.list", ()),
        ("change A f 644 0 0 9 98ea - usr/lib/app/db", ()),
    ],
)
def test_state_is_what_nothing_else_keeps(change: str, state: tuple[str, ...]) -> None:
    """Files that no package knows and directories of accounts, under a default prefix and no declared path."""
    assert proposed(change) == state


def test_what_a_package_brings_is_its_own() -> None:
    assert proposed("change A f 644 0 0 9 98ea - var/lib/app/db", "path 1 app var/lib/app/db") == ()


def test_the_fact_tells_no_record_from_an_unreadable_one() -> None:
    """An empty answer is no record; half an answer fails the host."""

    def packed(text: str) -> list[str]:
        return [base64.b64encode(gzip.compress(text.encode("utf-8", "surrogateescape"))).decode()]

    found = AuditCapture().process(packed(TEXT))
    assert isinstance(found, Capture)
    assert found == parse(TEXT)
    assert AuditCapture().process(packed("")) is None
    for wrong in (packed("record audit on\n"), ["no base64"], packed(TEXT)[0:0]):
        with pytest.raises(FactProcessError):
            AuditCapture().process(wrong)
