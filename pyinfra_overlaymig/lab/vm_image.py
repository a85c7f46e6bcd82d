"""Builds what every virtual machine of this host boots from, once; it must never change one that exists.

CACHE/vm-<key>/
    kernel       the distribution's own, for machines in clouds
    initramfs    busybox, the kernel modules that reach disks and network, vm_init.sh
    base.img     the base root, as an ext4 image that is never written
"""

from __future__ import annotations

import hashlib
import lzma
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab.base import built_once
from pyinfra_overlaymig.lab.locking import Report
from pyinfra_overlaymig.lab.run import run
from pyinfra_overlaymig.lab.sources import host_sources

Entry = tuple[str, int, bytes]
"""A file of an initramfs: its name, its mode with its type, its content."""

_INIT = Path(__file__).with_name("vm_init.sh")
_KERNEL = "linux-image-cloud-amd64"
_BUSYBOX = "busybox-static"
_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "overlay")
_MKE2FS = ("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0")
_ROOM = 1.5
"""An image's size, times what is in it: inodes and half-filled blocks."""


def image(cache: Path, base: Path, report: Report) -> Path:
    """The directory with kernel, initramfs and base image over the root ``base``, built now if ``cache`` lacks it."""
    made_from = repr((base.name, _KERNEL, _BUSYBOX, _MODULES, _MKE2FS, _ROOM, _INIT.read_text()))
    target = cache / f"vm-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"

    def build(scratch: Path, _: int) -> None:
        made = scratch / "made"
        made.mkdir()
        packages = scratch / "packages"
        _extract(_kernel_package(), packages)
        _extract(_BUSYBOX, packages)
        (kernel,) = packages.glob("boot/vmlinuz-*")
        kernel.rename(made / "kernel")
        (made / "initramfs").write_bytes(_cpio(_initramfs(packages)))
        _make_image(base, made / "base.img")

    return built_once(target, report, "building the image of virtual machines (once, under a minute)", build)


def initramfs_of(ground: Path, seed: Path) -> bytes:
    """The initramfs of one machine: the kernel unpacks one archive after the other."""
    return (ground / "initramfs").read_bytes() + _cpio(_tree(seed, "seed"))


def _kernel_package() -> str:
    """The package that the distribution's `the newest kernel` depends on."""
    if host_sources().distribution != "debian":
        raise OverlaymigError(
            "virtual machines of a lab run Debian's kernel, and this host's apt sources are not Debian's",
            hint="run it on Debian; without --vm, machines are made of namespaces and run here",
        )
    listed = run(["apt-cache", "depends", "--important", _KERNEL])
    found = re.search(r"Depends: (linux-image-\S+)", listed)
    if found is None:
        raise OverlaymigError(f"this host's apt knows no {_KERNEL}", hint="run: apt-get update")
    return found[1]


def _extract(package: str, target: Path) -> None:
    """Download a package from the host's own apt sources and unpack it, without installing it."""
    archives = target.with_name(f"archives-{package}")
    archives.mkdir()
    # As root: the account that apt would use may not enter the cache.
    run(
        ["env", "-C", archives, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package],
        hint="check that `apt-get update` works on this host",
    )
    (archive,) = archives.glob("*.deb")
    run(["dpkg-deb", "--extract", archive, target])


def _make_image(root: Path, target: Path) -> None:
    kilobytes = int(run(["du", "-skx", root]).split()[0])
    run([*_MKE2FS, "-d", root, target, f"{int(kilobytes * _ROOM) + (32 << 10)}k"])


def _initramfs(packages: Path) -> Iterator[Entry]:
    for name in ("bin", "dev", "modules"):
        yield name, stat.S_IFDIR | 0o755, b""
    yield "bin/busybox", stat.S_IFREG | 0o755, (packages / "bin/busybox").read_bytes()
    yield "init", stat.S_IFREG | 0o755, _INIT.read_bytes()
    for number, module in enumerate(_with_dependencies(packages)):
        yield f"modules/{number:02}.ko", stat.S_IFREG | 0o644, module


def _with_dependencies(packages: Path) -> Iterable[bytes]:
    """The modules that are needed, each after those that it depends on."""
    found = {path.name.split(".ko")[0].replace("-", "_"): path for path in packages.glob("**/*.ko*")}
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        # What has no file is built into the kernel; if not, the machine's console says so.
        if name in loaded or name not in found:
            return
        content = found[name].read_bytes()
        if found[name].suffix == ".xz":
            content = lzma.decompress(content)
        depends = re.search(rb"\0depends=([^\0]*)", content)
        for other in depends[1].decode().split(",") if depends else ():
            load(other.replace("-", "_"))
        loaded[name] = content

    for name in _MODULES:
        load(name)
    return loaded.values()


def _tree(directory: Path, name: str) -> Iterator[Entry]:
    mode = directory.lstat().st_mode
    if stat.S_ISDIR(mode):
        yield name, mode, b""
        for path in sorted(directory.iterdir()):
            yield from _tree(path, f"{name}/{path.name}")
    elif stat.S_ISLNK(mode):
        yield name, mode, str(directory.readlink()).encode()
    else:
        yield name, mode, directory.read_bytes()


def _cpio(entries: Iterable[Entry]) -> bytes:
    """An archive in the form that the kernel unpacks (newc); all of it is root's."""
    parts = []
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = f"070701{''.join(f'{field:08x}' for field in fields)}{name}\0".encode()
        parts += [_padded(header), _padded(content)]
    return b"".join(parts)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
