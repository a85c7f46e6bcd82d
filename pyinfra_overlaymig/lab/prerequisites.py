"""Names everything a lab needs and this host lacks, before anything is done."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab.run import succeeds

_PACKAGE = {
    "mmdebstrap": "mmdebstrap",
    "apt-config": "apt",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "flock": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
}
"""The programs a lab starts, each with the Debian and Ubuntu package that brings it."""

_PROBE = 'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"'


def check(directory: Path) -> None:
    """Raise an `OverlaymigError` that names all that is missing for a lab in ``directory``."""
    check_root()
    missing = [program for program in _PACKAGE if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(_PACKAGE[program] for program in missing))
        raise OverlaymigError(
            f"missing on this host: {', '.join(missing)}",
            hint=f"on Debian or Ubuntu: apt-get install {packages}; elsewhere, the packages that "
            "bring these programs (the host must have apt: the machines take its sources)",
        )
    if not _overlay_mounts(directory):
        raise OverlaymigError(
            f"overlayfs does not mount with its upper directory in {directory}",
            hint="run `modprobe overlay`; in a container, give it CAP_SYS_ADMIN and set "
            "OVERLAYMIG_LAB_DIR to a volume (ext4, XFS or btrfs)",
        )


def check_root() -> None:
    """Raise an `OverlaymigError` unless this process is root; puts root's programs on PATH."""
    if os.geteuid() != 0:
        raise OverlaymigError(
            "a lab makes mounts and namespaces, and this is not root",
            hint="run it as root (sudo), for example in a throwaway virtual machine",
        )
    # Debian's `su` keeps the PATH of the user it came from, without these.
    have = os.environ.get("PATH", os.defpath).split(":")
    system = ("/usr/local/sbin", "/usr/sbin", "/sbin")
    os.environ["PATH"] = ":".join([*have, *(path for path in system if path not in have)])


def _overlay_mounts(directory: Path) -> bool:
    """Tried in the lab's own directory, so that `down` removes what a killed try leaves."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        mounts = _mounts_in(directory)
    except OSError as error:
        raise OverlaymigError(
            f"no lab can be in {directory}: {error.strerror}",
            hint="let OVERLAYMIG_LAB_DIR name a directory on a disk (ext4, XFS or btrfs) that root can write to",
        ) from error
    if not mounts:
        for path in new:
            with suppress(OSError):
                path.rmdir()
    return mounts


def _mounts_in(directory: Path) -> bool:
    with tempfile.TemporaryDirectory(prefix="probe-", dir=directory) as scratch:
        parts = [Path(scratch, part) for part in ("lower", "upper", "work", "root")]
        for part in parts:
            part.mkdir()
        return succeeds(["unshare", "--mount", "sh", "-c", _PROBE, "sh", *parts])
