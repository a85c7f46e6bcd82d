"""Where a lab keeps its things and what it calls them; it only computes, and touches nothing.

LAB/                        flock on this directory serialises up, down and restart
  subnet                    the lab's /24, chosen once
  id_ed25519 id_ed25519.pub the operator's key for this lab
  known_hosts               one line per machine, rendered from the host keys
  audit/                    what machines need to capture who changes what; audit.py describes it
  probe-*/                  whether overlayfs works here; left only by an `up` that was killed
  machines/<name>/
    kind                    `namespaces` or `vm`
    data/                   the machine's /data, of one that is made of namespaces
    data.img                the same of a virtual machine: an ext4 image
    ssh_host_ed25519_key    kept over restarts, as is its .pub
    lock                    flock held by the supervising process while the machine runs
    supervisor init         "PID START BOOT" of that process and of the machine's PID 1
    console console.old     output of this boot and of the one before
    seed/                   small lower layer: identity and runner, rewritten before each boot
    boot/                   upper, work and root of this boot's overlay
    initramfs               of a virtual machine: the cache's, and the seed
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError

MAX_MACHINES = 200
SCRIPT = Path(__file__).with_name("machine.sh")
_NAME = re.compile(r"lab-([1-9][0-9]{0,2})")
_OWN = re.compile(r"subnet|id_ed25519(\.pub)?|known_hosts|machines|audit|probe-.*|lost\+found|\..*\.new(\.pub)?")
# mount(8) gives `:` `,` `\` and blanks a meaning in lowerdir=.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+@=-]*")


@dataclass(frozen=True)
class Lab:
    """One lab: a directory, and names derived from it, so that several labs live side by side."""

    directory: Path
    cache: Path

    @classmethod
    def at(cls, directory: Path, cache: Path | None = None) -> Lab:
        """The lab in ``directory``; OVERLAYMIG_CACHE_DIR names the cache unless it is given."""
        cache = cache or Path(os.environ.get("OVERLAYMIG_CACHE_DIR") or "/var/cache/overlaymig")
        for path in (directory, cache):
            if not _PLAIN_PATH.fullmatch(str(path.absolute())):
                raise OverlaymigError(
                    f"{path} holds a character that overlayfs options cannot carry",
                    hint="choose a directory of letters, digits and _ . / + @ = - only",
                )
        return cls(Path(os.path.realpath(directory)), Path(os.path.realpath(cache)))

    @classmethod
    def default(cls) -> Lab:
        """The lab that OVERLAYMIG_LAB_DIR names, or else /var/lib/overlaymig/lab."""
        # Empty would be the current directory, which `down` removes.
        return cls.at(Path(os.environ.get("OVERLAYMIG_LAB_DIR") or "/var/lib/overlaymig/lab"))

    @property
    def digest(self) -> bytes:
        """32 bytes from which names, addresses and hardware addresses are taken."""
        return hashlib.sha256(str(self.directory).encode()).digest()

    @property
    def tag(self) -> str:
        """Six hexadecimal digits: interface names hold at most 15 characters."""
        return self.digest.hex()[:6]

    @property
    def bridge(self) -> str:
        return f"olm{self.tag}"

    @property
    def mac(self) -> str:
        """Fixed: a bridge without one changes it with its ports, and its neighbours lose it."""
        tag = self.digest
        return f"02:{tag[0]:02x}:{tag[1]:02x}:{tag[2]:02x}:01:01"

    @property
    def nft_table(self) -> str:
        return f"olm_{self.tag}"

    @property
    def machines(self) -> Path:
        return self.directory / "machines"

    @property
    def audit(self) -> Path:
        return self.directory / "audit"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def subnet(self) -> Path:
        return self.directory / "subnet"

    def check_own(self) -> None:
        """Raise an `OverlaymigError` if the directory holds what no lab made: `down` removes it all."""
        try:
            names = sorted(entry.name for entry in self.directory.iterdir())
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        foreign = [name for name in names if not _OWN.fullmatch(name)]
        if foreign:
            raise OverlaymigError(
                f"{self.directory} is no lab: it holds {', '.join(foreign[:3])}",
                hint="let OVERLAYMIG_LAB_DIR name a directory that is empty or not there yet",
            )


@dataclass(frozen=True)
class Place:
    """What a machine is called and where its files are, whether it exists or not."""

    lab: Lab
    index: int

    @property
    def name(self) -> str:
        return f"lab-{self.index}"

    @property
    def directory(self) -> Path:
        return self.lab.machines / self.name

    @property
    def kind(self) -> Path:
        return self.directory / "kind"

    @property
    def console(self) -> Path:
        return self.directory / "console"

    @property
    def host_key(self) -> Path:
        return self.directory / "ssh_host_ed25519_key"

    @property
    def namespace(self) -> str:
        return f"{self.lab.bridge}-{self.name}"

    @property
    def interface(self) -> str:
        return f"{self.lab.bridge}-{self.index}"

    @property
    def mac(self) -> str:
        """Fixed, so that a machine started again is not sought under its old address."""
        tag = self.lab.digest
        return f"02:{tag[0]:02x}:{tag[1]:02x}:{tag[2]:02x}:00:{self.index:02x}"


def place(lab: Lab, name: str) -> Place:
    """The place of the machine called ``name``."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) > MAX_MACHINES:
        raise OverlaymigError(
            f"{name!r} is no machine of a lab",
            hint=f"machines are named lab-1 to lab-{MAX_MACHINES}; `overlaymig lab ls` lists them",
        )
    return Place(lab, int(match[1]))


def places(lab: Lab) -> list[Place]:
    """Every machine that has a directory, by number."""
    try:
        names = [path.name for path in lab.machines.iterdir()]
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise OverlaymigError(f"{lab.machines} is not for you to read", hint="the lab is root's: use sudo") from error
    return [Place(lab, n) for n in sorted(int(m[1]) for m in map(_NAME.fullmatch, names) if m)]
