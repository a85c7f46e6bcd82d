"""The rules of a session are those that auditctl would set, and none of anybody else's is touched."""

from __future__ import annotations

import _socket
import errno
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from pyinfra_overlaymig.runner.audit import calls, netlink, rules
from pyinfra_overlaymig.runner.audit.netlink import ALWAYS, EXCLUDE, FILESYSTEM, NEVER, ON_EXIT, Audit, Rule

NOBODY = 4000000001
"""A session that nobody has; auditctl prints it as a negative number."""
EXT4 = 0xEF53
OPENED = "open,openat,openat2"
CHANGED = (
    "truncate,rename,mkdir,rmdir,creat,link,unlink,symlink,mknod,mkdirat,mknodat,unlinkat,renameat,linkat,symlinkat,"
    "renameat2"
)
DESCRIBED = (
    "chmod,chown,lchown,utime,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,utimes,fchownat,"
    "futimesat,fchmodat,utimensat,452"
)
STARTED = "clone,fork,vfork,execve,execveat,clone3"
OF_X86_64 = [
    ("never", OPENED, "-F devmajor=1"),
    ("never", f"{OPENED},{CHANGED},{DESCRIBED}", "-F devmajor=0 -F devminor=57"),
    ("never", "openat", "-F a2&=0xC0 -F a3=0x0"),
    ("never", "utimensat", "-F a3=0x0"),
    ("always", OPENED, "-F success=1 -F perm=w -F key=migration_tracking-content"),
    ("always", "openat", "-F success=1 -F a2&0x40 -F key=migration_tracking-content"),
    ("always", "open", "-F success=1 -F a1&0x40 -F key=migration_tracking-content"),
    ("always", CHANGED, "-F success=1 -F key=migration_tracking-content"),
    ("always", DESCRIBED, "-F success=1 -F key=migration_tracking-metadata"),
    ("always", STARTED, "-F success=1 -F key=migration_tracking-process"),
]


@pytest.fixture
def kernel() -> Iterator[Audit]:
    """The kernel's audit, without rules of ours afterwards."""
    with Audit() as audit:
        yield audit
        audit.delete(*rules.of_those(audit, lambda session: session == NOBODY))


def listed() -> list[str]:
    """The rules of that session, as auditctl lists them."""
    text = subprocess.run(["auditctl", "-l"], capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines() if f"sessionid={NOBODY - 2**32}" in line]


def parts(line: str) -> tuple[str, frozenset[str], str]:
    match = re.fullmatch(r"-a (\w+),exit -F arch=\w+ -S (\S+) -F sessionid=\S+ (.*)", line)
    assert match, line
    return match[1], frozenset(match[2].split(",")), match[3]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="these are names of x86_64")
def test_rules_as_auditctl_lists_them(kernel: Audit) -> None:
    """Each kind of call, the session first of what is compared, what is left out first of all; also for 32 bits."""
    assert set(kernel.add(*rules.of_session(NOBODY, EXT4, ["1", "0:57"]))) == {0}
    found = listed()
    expected = [
        (action, frozenset(names.split(",")), what if action == "always" else f"{what} -F key=overlaymig-uppers-{EXT4}")
        for action, names, what in OF_X86_64
    ]
    assert [parts(line) for line in found if "arch=b64" in line] == expected
    assert len([line for line in found if "arch=b32" in line]) == len(expected) - 2
    assert any({"truncate64", "chown32"} & parts(line)[1] for line in found if "arch=b32" in line)


def test_rules_are_read_as_they_were_written(kernel: Audit) -> None:
    """So that they can be deleted as they are listed; what is there is not set twice."""
    wanted = rules.of_session(NOBODY, 0, ["1", "0:57"])
    assert set(kernel.add(*wanted)) == {0}
    assert kernel.add(wanted[0]) == [errno.EEXIST]
    there = [rule for rule in kernel.rules() if rules.session_of(rule) == NOBODY]
    assert there == wanted
    assert set(kernel.delete(*there)) == {0}
    assert kernel.delete(wanted[0]) == [errno.ENOENT]
    assert listed() == []


def test_rule_that_a_kernel_refuses_keeps_no_other_back(kernel: Audit) -> None:
    wanted = rules.of_session(NOBODY, 0, ["1"])
    strange = wanted[0]._replace(fields=((0xFFFF, netlink.EQUAL, 1),))
    assert kernel.add(strange, wanted[0]) == [errno.EINVAL, 0]
    assert len(listed()) == 1


class LateOnce:
    """A socket of which nobody reads for longer than the kernel waits, the first time; and with hardly a buffer."""

    def __init__(self, real: _socket.socket) -> None:
        self.close, self._real = real.close, real
        self.sent, self.errors = 0, list[int | None]()
        real.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)

    def send(self, data: bytes) -> None:
        self._real.send(data)
        self.sent += 1
        if self.sent == 1:
            time.sleep(0.5)

    def recv(self, size: int) -> bytes:
        try:
            return self._real.recv(size)
        except OSError as error:
            self.errors.append(error.errno)
            raise


def test_rules_are_all_listed_to_one_who_is_late(kernel: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops what it gets rid of to nobody; a list with holes would be taken for the whole."""
    wanted = rules.of_session(NOBODY, 0, ["1", "0:57", "0:58", "0:59"])
    assert set(kernel.add(*wanted)) == {0}
    with Audit() as late:
        slow = LateOnce(late._socket)
        monkeypatch.setattr(late, "_socket", slow)
        there = late.rules()
        assert [rule for rule in there if rules.session_of(rule) == NOBODY] == wanted
        assert errno.ENOBUFS in slow.errors


def test_rules_of_a_session_are_deleted_and_no_other(kernel: Audit) -> None:
    """Those that leave something out come last."""
    theirs = "-a always,exit -F arch=b64 -S acct -F uid=65533 -F key=theirs"
    subprocess.run(["auditctl", *theirs.split()], check=True)
    try:
        kernel.add(*rules.of_session(NOBODY, 0, ["1", "0:57"]))
        order = [rule.action for rule in rules.of_those(kernel, lambda session: session == NOBODY)]
        assert order == sorted(order, reverse=True)
        rules.end(kernel, lambda session: session == NOBODY)
        assert listed() == []
        assert theirs in subprocess.run(["auditctl", "-l"], capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run(["auditctl", *theirs.replace("-a ", "-d ", 1).split()], check=True)


class Kernel:
    """As `Audit`, of rules in memory."""

    def __init__(self, *there: Rule) -> None:
        self.there = [*there]

    def rules(self) -> list[Rule]:
        return [*self.there]

    def add(self, *many: Rule) -> list[int]:
        self.there += many
        return [0] * len(many)

    def delete(self, *many: Rule) -> list[int]:
        self.there = [rule for rule in self.there if rule not in many]
        return [0] * len(many)


THEIRS = Rule(ON_EXIT, ALWAYS, bytes(256), (), "theirs")
EXCLUDED = Rule(EXCLUDE, ALWAYS, bytes(256), ())


@pytest.mark.parametrize(
    ("sessions", "others", "left_out"),
    [
        ([], [], 0),
        ([EXT4], [], EXT4),
        ([EXT4, EXT4], [EXCLUDED], EXT4),
        ([EXT4, 1], [], 0),
        ([EXT4, 0], [], 0),
        ([EXT4], [THEIRS], 0),
        ([0], [], 0),
    ],
)
@pytest.mark.parametrize("before", [0, EXT4, 5])
def test_what_is_left_out_for_all(sessions: list[int], others: list[Rule], left_out: int, before: int) -> None:
    """A type of file system: while all sessions are of overlays on it, and nobody else has rules."""
    kernel = Kernel(*others, *([rules._filesystem(before)] if before else []))
    for number, uppers in enumerate(sessions):
        kernel.add(*rules.of_session(number, uppers, ["1"]))
    assert rules.narrow(kernel)  # type: ignore[arg-type] # as one
    found = [rule.key for rule in kernel.rules() if (rule.filter, rule.action) == (FILESYSTEM, NEVER)]
    assert found == ([f"overlaymig-uppers-{left_out}"] if left_out else [])
    assert all(other in kernel.rules() for other in others)


def test_calls_of_each_machine() -> None:
    """Every call that rules name is known for the machine that has it, by one number; both ABIs agree on newer ones."""
    names = {name for tuple_ in (rules._CHANGED, rules._OPENED, rules._STARTED) for name in tuple_}
    for machine, abis in calls._MACHINES.items():
        for _, text in abis:
            numbers = calls._numbers(text)
            assert names <= numbers.keys(), machine
            assert len(set(numbers.values())) == len(numbers)
            assert (numbers["openat2"], numbers["clone3"], numbers["fchmodat2"]) == (437, 435, 452)
