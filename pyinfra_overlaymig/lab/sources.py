"""Reads the host's own apt sources, so that machines take packages from where the host does.

Entries of other suites and of third parties are left out: their keys are not in the machines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab.run import run

_POCKETS = ("", "-updates", "-security", "-backports", "-proposed-updates", "-proposed", "/updates")
_COMPONENTS = {
    *("main", "contrib", "non-free", "non-free-firmware"),
    *("restricted", "universe", "multiverse"),
}
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>.+)")
_FIELD = re.compile(r"(?m)^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)")
_SETTINGS = (
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
)
"""Without these the host's mirror may be out of reach of a machine, or its index be refused."""


@dataclass(frozen=True)
class Sources:
    """What a machine's apt needs: the release and where its packages are.

    ``lines`` are one-line entries, ``stanzas`` deb822 ones, ``settings`` lines of apt.conf.
    """

    distribution: str
    suite: str
    lines: tuple[str, ...]
    stanzas: tuple[str, ...]
    settings: tuple[str, ...]


def host_sources(etc: Path = Path("/etc")) -> Sources:
    """The sources of the Debian or Ubuntu host whose configuration is under ``etc``."""
    lines_of_release = [line.partition("=") for line in _text(etc / "os-release").splitlines()]
    release = {key: value.strip("\"'") for key, _, value in lines_of_release}
    distribution, suite = release.get("ID", ""), release.get("VERSION_CODENAME", "")
    if distribution not in ("debian", "ubuntu") or not suite:
        raise OverlaymigError(
            f"a lab is built from the host's apt sources, and this host is {distribution!r}",
            hint="run it on a released Debian or Ubuntu, for example in a virtual machine",
        )
    files = [etc / "apt/sources.list", *sorted((etc / "apt/sources.list.d").glob("*.list"))]
    lines = tuple(one_line_entries(map(_text, files), distribution, suite))
    deb822 = sorted((etc / "apt/sources.list.d").glob("*.sources"))
    stanzas = tuple(deb822_entries(map(_text, deb822), distribution, suite))
    if not lines and not stanzas:
        raise OverlaymigError(
            f"no entry of this host's apt sources is {distribution}'s own {suite}",
            hint=f"add one for {suite} to /etc/apt/sources.list; third-party entries do not count",
        )
    return Sources(distribution, suite, lines, stanzas, tuple(_apt_settings()))


def one_line_entries(texts: Iterable[str], distribution: str, suite: str) -> Iterator[str]:
    """The distribution's own `deb` lines of ``texts`` (contents of *.list files)."""
    for line in "\n".join(texts).splitlines():
        match = _ONE_LINE.fullmatch(line.split("#")[0].strip())
        if match is None:
            continue
        options, components = match["options"] or "", match["rest"].split()
        key = re.search(r"(?i)signed-by=(\S+)", options)
        uris = _reachable([match["uri"]])
        if not uris or not _own([match["suite"]], suite) or not _COMPONENTS.issuperset(components):
            continue
        if key is None or _own_key(key[1], distribution):
            bracket = f"[{options}] " if options else ""
            yield f"deb {bracket}{uris[0]} {match['suite']} {' '.join(components)}"


def deb822_entries(texts: Iterable[str], distribution: str, suite: str) -> Iterator[str]:
    """The distribution's own stanzas of ``texts`` (contents of *.sources files)."""
    for text in texts:
        uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        for stanza in re.split(r"\n[ \t]*\n+", uncommented):
            fields = {name.lower(): value.strip() for name, value in _FIELD.findall(stanza)}
            kept = _own(fields.get("suites", "").split(), suite)
            uris = _reachable(fields.get("uris", "").split())
            if (
                not kept
                or not uris
                or "deb" not in fields.get("types", "").split()
                or fields.get("enabled", "yes").lower() in ("no", "false", "0")
                or not _COMPONENTS.issuperset(fields.get("components", "other").split())
                or not _own_key(fields.get("signed-by", ""), distribution)
            ):
                continue
            fields |= {"types": "deb", "suites": " ".join(kept), "uris": " ".join(uris)}
            fields.pop("enabled", None)
            yield "".join(f"{name.title()}: {value}\n" for name, value in fields.items())


def _own(suites: list[str], suite: str) -> list[str]:
    return [found for found in suites if found in {suite + pocket for pocket in _POCKETS}]


def _own_key(signed_by: str, distribution: str) -> bool:
    """Whether a machine has the key too: the archive's, or none named. Third parties embed."""
    return not signed_by or Path(signed_by).name.startswith(f"{distribution}-archive-")


def _reachable(uris: list[str]) -> list[str]:
    """``uris`` without media; a list of mirrors in a file of the host becomes its first mirror."""
    found: list[str] = []
    for uri in uris:
        scheme, _, path = uri.partition(":")
        if scheme == "mirror+file":
            found += [line.split()[0] for line in _text(Path(path)).splitlines() if line.strip()][:1]
        elif scheme not in ("cdrom", "file", "copy"):
            found.append(uri)
    return found


def _apt_settings() -> Iterator[str]:
    for name in _SETTINGS:
        value = run(["apt-config", "shell", "VALUE", name]).strip()
        if value:
            plain = value.removeprefix("VALUE='").removesuffix("'").replace('"', "")
            yield f'{name} "{plain}";'


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except (FileNotFoundError, IsADirectoryError):
        return ""
