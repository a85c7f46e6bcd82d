"""Which services run from what layers changed.

Files that they have open or mapped; scripts that their interpreter has read; configuration that a program names; the
package that it is from; the number of their account.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from typing import NamedTuple

from pyinfra_overlaymig.format import octal, paths
from pyinfra_overlaymig.runner import files, processes, renumbered, s6, services, store
from pyinfra_overlaymig.runner.whose import Whose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

_INTERPRETER = re.compile(r"(python|pypy|perl|ruby|node|php|lua|tclsh|guile)(js|-fpm)?[-\d.]*$")
_SCRIPT = re.compile(r"\.(py|pyc|pth|pl|pm|rb|js|mjs|cjs|json|php|inc|lua|tcl|scm)$")
_SHARED = re.compile(
    r"/(usr/)?(local/)?(s?bin|lib(32|64|x32)?(/[^/]*-linux-[^/]*)?)"
    r"|/|/etc|/dev|/run|/tmp|/var(/log|/lib|/lib/dpkg/info)?|/usr(/share|/local)?|/opt|/srv"
)
"""Directories that everything is in: what lies in one of them has nothing to do with what else does."""
_PACKAGE = re.compile(r"/var/lib/dpkg/info/([^/]+)\.list")
_READ_ANEW = re.compile(
    r"passwd-?|group-?|shadow-?|gshadow-?|subuid-?|subgid-?|hosts|hostname|resolv\.conf|nsswitch\.conf|services|protocols|shells|mtab"
    r"|ld\.so\..*|localtime|timezone|environment|machine-id|alternatives|rc.\.d|init\.d|cron.*|logrotate\.d|profile.*"
)
"""Below /etc: what is read each time that it is used, or by no service."""
_DELETED = " (deleted)"
_PATH = re.compile(r"/[\w.+@%:~-]+(?:/[\w.+@%~-]+)*")
_GOES_ON = re.compile(rb"[\w.+@%~-]")
_OF_A_SERVICE = ("run", "main", "prepare")
"""Programs of a service directory, which name what they read. Others are started each time that they are needed."""
_LONGEST_SCRIPT = 256 << 10


class Changed(NamedTuple):
    """Absolute paths that layers changed."""

    paths: frozenset[str]
    below: frozenset[str]
    """Whatever was in these directories is gone."""
    old: frozenset[str]
    """Those that were there before the switch, so that something may have read them."""
    links: frozenset[str]
    """Symbolic links: what is named by way of them is another thing now."""

    def touches(self, path: str) -> bool:
        return path in self.paths or any(above in self.below or above in self.links for above in _above(path))


def _above(path: str) -> Iterator[str]:
    while len(path) > 1:
        path = os.path.dirname(path)
        yield path


def changed(layers: Iterable[str]) -> Changed:
    """What these layers, which came or went, changed."""
    current = store.stack()
    found: set[str] = set()
    below: set[str] = set()
    old: set[str] = set()
    links: set[str] = set()
    for layer in layers:
        new = "A" if layer in current else "D"
        for directory in (f"{paths.MIGRATIONS}/{layer}", f"{paths.STAGING}/{layer}"):
            for line in files.lines(f"{directory}/changes.list"):
                operation, kind, *_, escaped = line.split(" ", 9)[:9]
                path = f"/{octal.unescape_path(escaped)}"
                found.add(path)
                if operation != new:
                    old.add(path)
                if operation == "D" or (operation == "C" and kind == "d"):
                    below.add(path)
                elif kind == "l":
                    links.add(path)
    return Changed(frozenset(found), frozenset(below), frozenset(old), frozenset(links))


def uses(names: Collection[str], layers: Iterable[str]) -> set[str]:
    """Those of the services ``names`` that run from what ``layers`` changed."""
    what = changed(layers) if names else None
    if what is None or not what.paths:
        return set()
    whose = Whose(names)
    look = _Look(what)
    moved = renumbered.since_last_switch()
    found = {name for name in names if _is_up(name) and look.started_from(services.directory(name))}
    for process in processes.every():
        name = whose.service(process)
        if name and name not in found and (moved.has(process) or look.at(process.pid)):
            found.add(name)
    return found


def _is_up(name: str) -> bool:
    status = s6.read(services.linked(name))
    return bool(status and status.up)


class _Look:
    """At processes, for what they have of one change; what programs say is remembered."""

    def __init__(self, what: Changed) -> None:
        self.what = what
        self.scripts = [path for path in what.old if _SCRIPT.search(path)]
        self.words = _configuration(what.paths)
        self.programs: dict[str, bool] = {}
        self.packaged = _packaged(what.paths)
        self.directories = {os.path.dirname(path) for path in what.paths if path.startswith("/etc/")}

    def started_from(self, directory: str) -> bool:
        """Whether the programs of a service directory name it: they read it and end, or become others."""
        texts = [f"{directory}/{name}" for name in _OF_A_SERVICE]
        texts += [f"{directory}/env/{name}" for name in files.names(f"{directory}/env")]
        own = [_text(path) for path in texts]
        # A script of its own that becomes the program is no process any more, and may have read configuration.
        called = {path for text in own for path in _PATH.findall(text) if os.path.isfile(paths.LIVE + path)}
        scripts = [text for text in map(_text, (paths.LIVE + path for path in called)) if text.startswith("#!")]
        return any(map(self._is_named_in, (*own, *scripts)))

    def _is_named_in(self, text: str) -> bool:
        return any(map(self._is_read_by_name, _PATH.findall(text)))

    def _is_read_by_name(self, path: str) -> bool:
        """Whether what is at ``path`` was changed, or is configuration in it; what is read anew at each use is not."""
        if path.startswith("/etc/") and _READ_ANEW.fullmatch(path.split("/")[2]):
            return False
        return self.what.touches(path) or (path in self.directories and not _SHARED.fullmatch(path))

    def at(self, pid: int) -> bool:
        """Whether process ``pid`` runs from it."""
        open_files = {one.removesuffix(_DELETED) for one in processes.opened(pid).values() if one.startswith("/")}
        has = open_files | {one.removesuffix(_DELETED) for one in processes.mapped(pid)}
        program = processes.link(pid, "exe").removesuffix(_DELETED)
        words = processes.arguments(pid)
        return (
            any(map(self.what.touches, has))
            or self._interprets(pid, program, words, has)
            or self._names(pid, program, words)
            or not self.packaged.isdisjoint({program, *words})
        )

    def _interprets(self, pid: int, program: str, words: list[str], has: set[str]) -> bool:
        """An interpreter has read scripts and closed them: those beside what it has, or was called with, may be it."""
        if not self.scripts or not _INTERPRETER.search(os.path.basename(program)):
            return False
        here = processes.link(pid, "cwd")
        called = {os.path.normpath(os.path.join(here, word)) for word in words[1:] if not word.startswith("-")}
        own = {os.path.dirname(path) for path in (*has, *called)} | {here, *called}
        # Of an environment of its own: what it is called as lies in its bin.
        own.add(os.path.dirname(os.path.dirname(words[0])) if words and words[0].startswith("/") else "")
        own = {path for path in own if path.startswith("/") and not _SHARED.fullmatch(path)}
        libraries = re.compile(rf"/(usr|opt)/.*/{re.escape(_language(program))}[^/]*/")
        return any(
            path in called or libraries.match(path) or any(above in own for above in _above(path))
            for path in self.scripts
        )

    def _names(self, pid: int, program: str, words: list[str]) -> bool:
        """Its configuration: a program has the name of its own in it, was called with it, or is a script that has."""
        if any(map(self._is_named_in, words[1:])) or any(map(self._is_named_in, _scripts(pid, words))):
            return True
        if not self.words:
            return False
        if program not in self.programs:
            self.programs[program] = _says(f"/proc/{pid}/exe", self.words)
        return self.programs[program]


def _scripts(pid: int, words: list[str]) -> list[str]:
    """The texts of the files that a process was called with."""
    here = processes.link(pid, "cwd")
    return [_text(f"/proc/{pid}/root{os.path.join(here, word)}") for word in words[:3] if not word.startswith("-")]


def _text(path: str) -> str:
    """What is in a file that is no longer than scripts are; of anything else, nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # It may be any word.
        return ""
    try:
        found = os.fstat(descriptor)
        short = stat.S_ISREG(found.st_mode) and found.st_size <= _LONGEST_SCRIPT
        text = os.read(descriptor, _LONGEST_SCRIPT) if short else b""
    finally:
        os.close(descriptor)
    return "" if b"\0" in text else text.decode("utf-8", "surrogateescape")


def _language(program: str) -> str:
    found = _INTERPRETER.search(os.path.basename(program))
    return found[1] if found else program


def _configuration(changed: Collection[str]) -> list[str]:
    """How a program would name configuration that was changed: by its path, or by a directory for it below /etc."""
    words: set[str] = set()
    for path in changed:
        _, top, *rest = path.split("/")
        if top != "etc" or not rest or path.startswith(f"/{paths.SERVICES}/") or _READ_ANEW.fullmatch(rest[0]):
            continue
        words.add(path)
        if len(rest) > 1:
            words.add(f"/etc/{rest[0]}/")
    return sorted(words)


def _says(path: str, words: list[str]) -> bool:
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return any(says(text, os.fsencode(word)) for word in words)
    except (*processes.GONE, ValueError):
        # It ended, or its program is empty.
        return False


def says(text: mmap.mmap | bytes, word: bytes) -> bool:
    """Whether a path, or a directory with its slash, is in ``text`` as a whole: /etc/n is not in /etc/nologin."""
    at = text.find(word)
    while at >= 0 and not word.endswith(b"/") and _GOES_ON.match(text, at + len(word)):
        at = text.find(word, at + 1)
    return at >= 0


def _packaged(changed: Collection[str]) -> frozenset[str]:
    """What is in packages that were installed anew."""
    found: set[str] = set()
    for path in changed:
        if _PACKAGE.fullmatch(path):
            found.update(files.lines(f"{paths.LIVE}{path}"))
    return frozenset(one for one in found if "/bin/" in one or "/sbin/" in one or one.startswith(("/opt/", "/usr/lib")))
