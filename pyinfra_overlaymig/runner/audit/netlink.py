"""The kernel's audit over its netlink socket: its figures and its rules. `auditctl` would do, at 3 ms a call."""

from __future__ import annotations

import errno
import os
import struct

# The module around it takes 8 ms to import, for names that nobody asks for here.
from _socket import socket
from contextlib import suppress
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self

_AF_NETLINK, _SOCK_RAW, _SOCK_CLOEXEC, _NETLINK_AUDIT = 16, 3, 0o2000000, 9
_GET, _SET, _ADD_RULE, _DEL_RULE, _LIST_RULES = 1000, 1001, 1011, 1012, 1013
_ERROR, _DONE = 2, 3
_REQUEST, _ACK = 1, 4
_HEADER = struct.Struct("=IHHII")
_STATUS = struct.Struct("=10I")
_HEAD, _WORDS, _WORD = struct.Struct("=3I"), struct.Struct("=64I"), struct.Struct("=I")
_ENABLED, _BACKLOG = 1, 16
_SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER = 1, 33, 1 << 23
_TRIES = 8
_AT_ONCE = 32
"""Rules in one message: the answers to them have to fit into the socket's buffer."""


class Status(NamedTuple):
    """The kernel's own figures. ``pid``: of whom it tells records, 0 for nobody; ``enabled``: 2 where it is locked."""

    enabled: int
    pid: int
    backlog_limit: int
    lost: int


class Rule(NamedTuple):
    """A rule. ``calls``: a bit for each. ``fields``: what is compared, how (EQUAL and others), with which number."""

    filter: int
    action: int
    calls: bytes
    fields: tuple[tuple[int, int, int], ...]
    key: str = ""


class Audit:
    """A connection to the kernel's audit. OSError where there is none, or it does not obey this process."""

    def __init__(self) -> None:
        self._socket = socket(_AF_NETLINK, _SOCK_RAW | _SOCK_CLOEXEC, _NETLINK_AUDIT)
        # Only some may have one that is larger than the machine's limit.
        with suppress(PermissionError):
            self._socket.setsockopt(_SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def status(self) -> Status:
        for kind, data in self._ask(_GET):
            if kind == _GET:
                # An older kernel tells fewer figures, a newer one more.
                words = _STATUS.unpack(data[: _STATUS.size].ljust(_STATUS.size, b"\0"))
                return Status(enabled=words[1], pid=words[3], backlog_limit=words[5], lost=words[6])
        raise OSError("the kernel does not tell its audit's status")

    def enable(self, enabled: int) -> None:
        self._set(_ENABLED, 1, enabled)

    def limit_backlog(self, records: int) -> None:
        self._set(_BACKLOG, 5, records)

    def rules(self) -> list[Rule]:
        """All there are. OSError (ENOBUFS) where this process never gets to hear them all before the kernel goes on."""
        for _ in range(_TRIES):
            try:
                return self._rules()
            except OSError as error:
                # On a busy machine with many rules: what is still to come of that list is not taken for the next.
                if error.errno != errno.ENOBUFS:
                    raise
        return self._rules()

    def _rules(self) -> list[Rule]:
        return [_read(data) for kind, data in self._ask(_LIST_RULES) if kind == _LIST_RULES]

    def add(self, *rules: Rule) -> list[int]:
        """Set rules; for each the error number, or 0. One that is refused does not keep the next from being set."""
        return self._change(_ADD_RULE, rules, _AT_ONCE)

    def delete(self, *rules: Rule) -> list[int]:
        """Delete rules; for each the error number, or 0. The kernel takes 12 ms for one, and hears nobody else."""
        return self._change(_DEL_RULE, rules, 1)

    def _set(self, mask: int, place: int, value: int) -> None:
        words = [mask] + [0] * 9
        words[place] = value
        for _ in self._ask(_SET, _STATUS.pack(*words)):
            pass

    def _change(self, kind: int, rules: Sequence[Rule], many: int) -> list[int]:
        errors: list[int] = []
        for start in range(0, len(rules), many):
            some = rules[start : start + many]
            first = self._number + 1
            self._socket.send(b"".join(self._message(kind, _ACK, _written(rule)) for rule in some))
            answers: dict[int, int] = {}
            while len(answers) < len(some):
                for answer, number, data in self._received():
                    if answer == _ERROR and number >= first:
                        answers[number] = _error(data)
            errors += [answers[first + place] for place in range(len(some))]
        return errors

    def _ask(self, kind: int, data: bytes = b"") -> Iterator[tuple[int, bytes]]:
        """What the kernel answers, until it has said that this is all."""
        self._socket.send(self._message(kind, _ACK, data))
        # A list goes on after the acknowledgement, to its own end.
        end = _DONE if kind == _LIST_RULES else _ERROR
        # So do figures, which come after it.
        wanted = {end, _GET} if kind == _GET else {end}
        while wanted:
            for answer, number, body in self._received():
                if number != self._number:
                    continue
                if answer == _ERROR and (error := _error(body)):
                    raise OSError(error, os.strerror(error))
                wanted.discard(answer)
                yield answer, body

    def _message(self, kind: int, flags: int, data: bytes) -> bytes:
        self._number += 1
        length = _HEADER.size + len(data)
        return _HEADER.pack(length, kind, _REQUEST | flags, self._number, 0) + data + bytes(-length % 4)

    def _received(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, number and content of the messages that came."""
        data = self._socket.recv(65536)
        while len(data) >= _HEADER.size:
            length, kind, _, number, _ = _HEADER.unpack_from(data)
            # The kernel counts nothing in the length of a rule but the rule, nor its key.
            yield kind, number, data[_HEADER.size : max(length, _HEADER.size)]
            data = data[length + -length % 4 :] if length >= _HEADER.size else b""


def _error(data: bytes) -> int:
    number: int = struct.unpack_from("=i", data)[0]
    return -number


def mask(calls: Iterable[int]) -> bytes:
    """The bits of these calls."""
    words = [0] * 64
    for call in calls:
        words[call // 32] |= 1 << call % 32
    return _WORDS.pack(*words)


def _written(rule: Rule) -> bytes:
    """As the kernel reads it: struct audit_rule_data."""
    fields = list(rule.fields)
    key = os.fsencode(rule.key)
    if key:
        fields.append((FILTERKEY, EQUAL, len(key)))
    numbers, how, values = ([field[part] for field in fields] + [0] * (64 - len(fields)) for part in (0, 1, 2))
    head = _HEAD.pack(rule.filter, rule.action, len(fields))
    return (
        head
        + rule.calls
        + _WORDS.pack(*numbers)
        + _WORDS.pack(*values)
        + _WORDS.pack(*how)
        + _WORD.pack(len(key))
        + key
    )


def _read(data: bytes) -> Rule:
    kind, action, count = _HEAD.unpack_from(data)
    calls = data[_HEAD.size : _HEAD.size + _WORDS.size]
    first = _HEAD.size + _WORDS.size
    columns = [struct.unpack_from(f"={count}I", data, first + _WORDS.size * part) for part in range(3)]
    key, fields = "", []
    for number, value, how in zip(*columns, strict=True):
        if number == FILTERKEY:
            # The texts of rules follow them; ours have no other.
            start = first + 3 * _WORDS.size + _WORD.size
            key = os.fsdecode(data[start : start + value])
        else:
            fields.append((number, how, value))
    return Rule(kind, action, calls, tuple(fields), key)


# linux/audit.h. Filters and actions:
ON_EXIT, EXCLUDE, FILESYSTEM = 4, 5, 6
NEVER, ALWAYS = 0, 2
# Fields, and how they are compared:
ARCH, MSGTYPE, SESSIONID, FSTYPE, DEVMAJOR, DEVMINOR, SUCCESS, PERM = 11, 12, 25, 26, 100, 101, 104, 106
ARGUMENTS, FILTERKEY = 200, 210
EQUAL, BITS, ALL_BITS = 0x40000000, 0x08000000, 0x48000000
