"""Machines that are virtual: a kernel of their own under QEMU's software emulation, so that power can be cut.

To end one kills QEMU: what the guest has not flushed to its disk is lost, as when the power goes.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import network, ssh
from pyinfra_overlaymig.lab.base import base_root
from pyinfra_overlaymig.lab.layout import SCRIPT, Place
from pyinfra_overlaymig.lab.locking import Report
from pyinfra_overlaymig.lab.run import run
from pyinfra_overlaymig.lab.vm_image import image, initramfs_of

patience = 300.0
"""Seconds within which ssh answers, or something is wrong: many may boot on few cores."""

KERNEL = ["console=ttyS0", "quiet", "panic=-1", "norandmaps"]
"""What the kernel is told. norandmaps: QEMU translates a program anew for each address it is loaded at."""

_PACKAGE = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
_TUN = Path("/dev/net/tun")
_MEMORY = "768M"
_DISK = 8 << 30
"""Size of /data in bytes; its image is sparse."""


def check() -> None:
    """Raise an `OverlaymigError` that names all that this host lacks for virtual machines."""
    if platform.machine() != "x86_64":
        raise OverlaymigError(
            f"virtual machines of a lab are x86_64, and this host is {platform.machine()}",
            hint="without --vm, machines are made of namespaces and run here",
        )
    missing = [program for program in _PACKAGE if shutil.which(program) is None]
    if missing:
        raise OverlaymigError(
            f"missing on this host for virtual machines: {', '.join(missing)}",
            hint=f"on Debian: apt-get install --no-install-recommends {' '.join(_PACKAGE[name] for name in missing)}",
        )
    if not _TUN.exists():
        raise OverlaymigError(
            f"this host has no {_TUN}, which connects virtual machines",
            hint="run `modprobe tun`; in a container, pass the device in",
        )


def ground(cache: Path, report: Report) -> Path:
    """What all machines of this kind start from: kernel, initramfs and base image."""
    check()
    return image(cache, base_root(cache, report), report)


def data(place: Place) -> Path:
    """What is at /data, as this host sees it: an ext4 image."""
    return place.directory / "data.img"


def disk(place: Place) -> str:
    """What QEMU opens as the disk for /data."""
    return str(data(place))


def create(place: Place) -> None:
    """Make the disk for /data, unless it is there."""
    if data(place).exists():
        return
    new = place.directory / ".data.img.new"
    new.unlink(missing_ok=True)
    with new.open("w") as file:
        os.truncate(file.fileno(), _DISK)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", new])
    new.replace(data(place))


def program(place: Place, ground: Path) -> list[str | Path]:
    """Plug the machine in; the argv that boots it and stays as long as it runs."""
    network.plug_tap(place)
    initramfs = place.directory / "initramfs"
    initramfs.write_bytes(initramfs_of(ground, place.directory / "seed"))
    # What the kernel does not know it hands to vm_init.sh as its environment.
    settings = network.settings(place) | {"name": place.name}
    return [
        *("/bin/sh", SCRIPT, "become", place.directory, place.name),
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        # Never KVM: nested in another virtual machine, as in CI, it may hang.
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", _MEMORY),
        *("-serial", "stdio", "-kernel", ground / "kernel", "-initrd", initramfs),
        *("-append", " ".join([*KERNEL, *(f"{key}={value}" for key, value in settings.items())])),
        *("-drive", f"if=virtio,format=raw,readonly=on,file={ground / 'base.img'}"),
        # writeback: a write reaches the image when the guest flushes it, or when the guest's kernel sees fit.
        *("-drive", f"if=virtio,format=raw,cache=writeback,file={disk(place)}"),
        *("-netdev", f"tap,id=lab,ifname={place.interface},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=lab,mac={place.mac},romfile="),
    ]


def enter(place: Place, _: int, command: list[str]) -> list[str]:
    """The argv that runs ``command`` in the machine's live root: over ssh, there is no other way in."""
    reach = ssh.argv(place.lab, network.address(place))
    terminal = ["-t"] if sys.stdin.isatty() else []
    return [*reach, *terminal, shlex.join(command)]
