"""Starts and ends single machines; what differs between their kinds is in namespaces.py and vm.py."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import namespaces, network, process, vm
from pyinfra_overlaymig.lab.layout import Lab, Place
from pyinfra_overlaymig.lab.locking import Report, write_file
from pyinfra_overlaymig.lab.removal import remove_tree
from pyinfra_overlaymig.lab.run import detach, run
from pyinfra_overlaymig.migration.runner import runner_archive

_HOST_SETTINGS = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pip.conf"))
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


class Kind(Protocol):
    """What differs between kinds of machines; namespaces.py and vm.py are such."""

    patience: float

    def ground(self, cache: Path, report: Report, /) -> Path: ...
    def data(self, place: Place, /) -> Path: ...
    def create(self, place: Place, /) -> None: ...
    def program(self, place: Place, ground: Path, /) -> list[str | Path]: ...
    def enter(self, place: Place, pid: int, command: list[str], /) -> list[str]: ...


KINDS: dict[str, Kind] = {"namespaces": namespaces, "vm": vm}


@dataclass(frozen=True)
class Machine:
    """A machine as it is now. ``pid``: on the host, that of its PID 1 or of its QEMU; None when stopped."""

    place: Place
    name: str
    kind: str
    address: str
    pid: int | None
    directory: Path
    data: Path
    console: Path

    @property
    def running(self) -> bool:
        return self.pid is not None

    def must_run(self) -> int:
        """Its pid; an `OverlaymigError` that says how to start it when it is stopped."""
        if self.pid is None:
            raise OverlaymigError(f"{self.name} does not run", hint=f"start it: overlaymig lab restart {self.name}")
        return self.pid

    def enter(self, *command: str) -> list[str]:
        """The argv that runs ``command`` as root in the machine's live root, without its sshd."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        term = f"TERM={os.environ.get('TERM', 'dumb')}"
        clean = ["env", "-i", "-C", "/root", path, "HOME=/root", "LANG=C.UTF-8", term, *command]
        return KINDS[self.kind].enter(self.place, self.must_run(), clean)


def look(place: Place) -> Machine:
    """The machine at ``place``; it must have been created."""
    return Machine(
        place,
        place.name,
        kind_of(place),
        network.address(place),
        process.recorded(place.directory / "init"),
        place.directory,
        KINDS[kind_of(place)].data(place),
        place.console,
    )


def kind_of(place: Place, new: str = "namespaces") -> str:
    """The kind of the machine at ``place``; where none is yet, ``new``."""
    try:
        return place.kind.read_text().strip()
    except FileNotFoundError:
        return new


def create(place: Place, kind: str) -> None:
    """Make what a machine keeps over restarts: its directory, its /data and its host key.

    A machine that is there already stays of the kind that it is, whatever ``kind`` says.
    """
    place.directory.mkdir(parents=True, exist_ok=True)
    if not place.kind.exists():
        write_file(place.kind, f"{kind}\n")
    KINDS[kind_of(place)].create(place)
    make_key(place.host_key, place.name)


def make_key(path: Path, comment: str) -> None:
    """Make an ed25519 key pair at ``path`` and ``path``.pub unless both are there."""
    public = path.with_name(f"{path.name}.pub")
    if path.exists() and public.exists():
        return
    scratch = path.with_name(f".{path.name}.new")
    for left in (scratch, scratch.with_name(f"{scratch.name}.pub")):
        left.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", scratch])
    # The private key last: it is what says that the pair is complete.
    scratch.with_name(f"{scratch.name}.pub").replace(public)
    scratch.replace(path)


def start(place: Place, ground: Path) -> Callable[[], bool]:
    """Boot a machine, after ending it if it runs; the result tells whether it still runs."""
    process.end(place.directory)
    _seed(place)
    if place.console.exists():
        place.console.replace(place.directory / "console.old")
    for record in ("init", "supervisor"):
        (place.directory / record).unlink(missing_ok=True)
    return detach(KINDS[kind_of(place)].program(place, ground), console=place.console)


def remove(place: Place) -> None:
    """End a machine and remove all it had, /data included."""
    process.end(place.directory)
    network.unplug(place)
    remove_tree(place.directory)


def _seed(place: Place) -> None:
    """Write the small lower layer anew: who the machine is, who may log in, the runner."""
    seed = place.directory / "seed"
    remove_tree(seed)
    identity = hashlib.sha256(str(place.directory).encode()).hexdigest()[:32]
    address, name = network.address(place), place.name
    hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{address} {name}\n"
    _write(seed / "etc/hostname", f"{name}\n")
    _write(seed / "etc/hosts", hosts)
    _write(seed / "etc/machine-id", f"{identity}\n", 0o444)
    _write(seed / "etc/resolv.conf", _resolv_conf())
    _trust(seed)
    _write(seed / "etc/ssh/ssh_host_ed25519_key", place.host_key.read_text(), 0o600)
    _write(seed / "root/.ssh/authorized_keys", place.lab.key.with_suffix(".pub").read_text(), 0o600)
    (seed / "root/.ssh").chmod(0o700)
    (seed / "root").chmod(0o700)
    _unpack_runner(seed / "usr/local/lib/system-migrate")
    command = seed / "usr/local/sbin/system-migrate"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.symlink_to("../lib/system-migrate/pyinfra_overlaymig/runner/system-migrate")


def _write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)


def _trust(seed: Path) -> None:
    """Let machines reach what the host reaches: its certificate authorities, and where pip is to look."""
    for path in _HOST_SETTINGS:
        if path.exists():
            _write(seed / path.relative_to("/"), path.read_text())


def _unpack_runner(target: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(runner_archive())) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                _write(target / member.name, content.read(), member.mode)


def _resolv_conf() -> str:
    """The host's resolvers; a stub on the host's loopback is out of reach of the machines."""
    text = ""
    for path in _RESOLVERS:
        try:
            text = path.read_text()
        except FileNotFoundError:
            continue
        servers = [words[1] for words in map(str.split, text.splitlines()) if words[:1] == ["nameserver"]]
        if any(not server.startswith("127.") and server != "::1" for server in servers):
            break
    return text


def write_known_hosts(lab: Lab, all_places: list[Place]) -> None:
    """Render the lab's known_hosts from the machines' public host keys, by address and by name."""
    lines = []
    for place in all_places:
        if not place.host_key.exists():
            continue  # an `up` was killed while it made this one
        kind, key = place.host_key.with_suffix(".pub").read_text().split()[:2]
        lines.append(f"{network.address(place)},{place.name} {kind} {key}\n")
    write_file(lab.known_hosts, "".join(lines))
