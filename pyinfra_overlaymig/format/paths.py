"""Where things are on a machine: each path once, for both sides."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DATA: Final = "/data"
SYSTEM: Final = f"{DATA}/system"
STATE: Final = f"{DATA}/state"

LAYERS: Final = f"{SYSTEM}/layers"
MIGRATIONS: Final = f"{SYSTEM}/migrations"
CAPTURES: Final = f"{SYSTEM}/captures"
GENERATIONS: Final = f"{SYSTEM}/generations"
STAGING: Final = f"{SYSTEM}/staging"
UPPER: Final = f"{SYSTEM}/upper"
LOCK: Final = f"{SYSTEM}/lock"
ROLLBACK: Final = f"{SYSTEM}/rollback"
REPLACED: Final = f"{SYSTEM}/replaced"
SNAPSHOTS: Final = f"{SYSTEM}/snapshots"
ACCOUNTS: Final = f"{SYSTEM}/accounts"
AUDIT: Final = f"{SYSTEM}/audit"
VOLUMES: Final = f"{SYSTEM}/volumes"
BOOTS: Final = f"{SYSTEM}/boots"
BASE_SERVICES: Final = f"{SYSTEM}/base-services"
"""Names of services of the base that were ready once."""
RESERVE: Final = f"{SYSTEM}/reserve"
TEMPORARY: Final = f"{SYSTEM}/temporary"
"""What is mounted at /tmp and /var/tmp."""
RUNNER: Final = f"{SYSTEM}/runner"
PROGRAM: Final = f"{RUNNER}/system-migrate"
METADATA: Final = f"{MIGRATIONS}/metadata.json"

LOGS: Final = f"{STATE}/var/log"
"""LOGS/<service>/ is where its output goes."""
INITIALIZED: Final = f"{STATE}/services"
"""INITIALIZED/<service>/initialized says that it was started once with its state in place."""

RUN: Final = "/run/system-migrate"
CONFIRM: Final = f"{RUN}/confirm"
AWAITED: Final = f"{CONFIRM}/awaited"
BASE: Final = f"{RUN}/base"
LIVE: Final = "/proc/1/root"
OLD: Final = "/dev/.system-migrate.old"
AUDIT_SHARED: Final = f"{LIVE}/run/overlaymig-audit"

SCANDIR: Final = "/run/service"
SERVICEDIRS: Final = "/run/services"
SERVICES: Final = "etc/s6/services"
"""Where a root has the definitions of its services, relative to it."""

NOWHERE: Final = (
    *("data", "dev", "proc", "run", "sys", "tmp", "var/tmp"),
    *("var/cache/apt/archives", "var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin", "var/cache/ldconfig"),
    *("var/lib/apt/lists", "var/log/apt", "var/log/dpkg.log", "var/log/alternatives.log"),
)
"""What belongs to no layer, relative to a root: other mounts, caches (apt's package lists too, which are stale
tomorrow), logs of the installation itself."""

FOREIGN: Final = (DATA, "/proc", "/sys", "/dev", "/run", "/tmp", "/var/run", "/var/lock", "/var/tmp")  # noqa: S108 - names to compare with
"""What can be no state path, nor hold one: no layer's, and another mount's."""

OF_PACKAGES: Final = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache/debconf")
"""What packages and files would disagree without: it goes with the layers, never with state."""

OF_PROGRAMS: Final = (
    *("/bin", "/boot", "/etc/s6", "/lib", "/lib32", "/lib64", "/libx32", "/sbin"),
    *("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/libx32", "/usr/sbin"),
    *("/usr/local/bin", "/usr/local/lib", "/usr/local/sbin"),
    *("/etc/alternatives", "/etc/apt", "/etc/default", "/etc/dpkg", "/etc/init.d"),
    *("/etc/ld.so.conf.d", "/etc/pam.d", "/etc/profile.d", "/etc/security", "/etc/systemd"),
)
"""What the system is: state in place of it, or of what holds it, would keep every layer's from being seen."""

OF_ALL: Final = ("/usr/include", "/usr/share", "/usr/src")
"""Where all packages have something: what is below may be state, the whole is none."""

SHARED: Final = ("/opt",)
"""As OF_ALL, as soon as anything has files there."""

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where scripts and services find their programs."""


def is_below(path: str, top: str) -> bool:
    """Whether ``path`` is ``top`` or lies in it."""
    return path == top or path.startswith(f"{top}/")


def is_nested(one: str, other: str) -> bool:
    """Whether one of two paths is the other, or lies in it."""
    return is_below(one, other) or is_below(other, one)
