"""Unix sockets that are bound to a path, and on which file system: asked of the kernel by sock_diag(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

_NETLINK_SOCK_DIAG, _BY_FAMILY, _DONE, _ERROR = 4, 20, 3, 2
_REQUEST, _DUMP = 0x1, 0x300
_SHOW_NAME, _SHOW_VFS = 0x1, 0x2
_NAME, _VFS = 0, 1
_LISTENING = 10
_ALL = 0xFFFFFFFF
_HEADER, _MESSAGE = struct.Struct("=IHHII"), struct.Struct("=BBBBIII")


class Bound(NamedTuple):
    """A socket that others reach by ``path``: one that listens, or takes datagrams. ``device`` as os.makedev has it."""

    inode: int
    path: str
    device: int


def bound() -> list[Bound]:
    """Those of this network namespace; none where the kernel cannot tell."""
    try:
        return [one for message in _dump() if (one := _parse(message))]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            return []
        raise


def _dump() -> list[bytes]:
    body = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, _ALL, 0, _SHOW_NAME | _SHOW_VFS, _ALL, _ALL)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as channel:
        channel.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + body)
        found: list[bytes] = []
        while True:
            data = channel.recv(1 << 18)
            while data:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    (number,) = struct.unpack_from("=i", data, _HEADER.size)
                    raise OSError(-number, os.strerror(-number), "sock_diag")
                found.append(data[_HEADER.size : length])
                data = data[_aligned(length) :]


def _parse(message: bytes) -> Bound | None:
    _, kind, state, _, inode, *_ = _MESSAGE.unpack_from(message)
    values: dict[int, bytes] = {}
    rest = message[_MESSAGE.size :]
    while len(rest) >= 4:  # noqa: PLR2004 - the header of an attribute
        length, what = struct.unpack_from("=HH", rest)
        values[what] = rest[4:length]
        rest = rest[_aligned(length) :]
    name = values.get(_NAME, b"")
    if _VFS not in values or not name or name[0] == 0 or not (state == _LISTENING or kind == socket.SOCK_DGRAM):
        return None
    _, device = struct.unpack_from("=II", values[_VFS])
    return Bound(inode, os.fsdecode(name.rstrip(b"\0")), kernel_device(device))


def kernel_device(number: int) -> int:
    """A device as the kernel writes it inside: twelve bits and twenty."""
    return os.makedev(number >> 20, number & 0xFFFFF)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
