"""Machines take their packages from where the host does, and only from the distribution itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab.sources import deb822_entries, host_sources, one_line_entries

DEBIAN = "http://mirror.example/debian"


def _lines(text: str) -> list[str]:
    return list(one_line_entries([text], "debian", "bookworm"))


def _stanzas(text: str) -> list[str]:
    return list(deb822_entries([text], "debian", "bookworm"))


@pytest.mark.parametrize("suite", ["bookworm", "bookworm-updates", "bookworm-security", "bookworm-backports"])
def test_the_release_and_its_pockets_are_taken(suite: str) -> None:
    assert _lines(f"deb {DEBIAN} {suite} main contrib") == [f"deb {DEBIAN} {suite} main contrib"]
    stanza = f"Types: deb\nURIs: {DEBIAN}\nSuites: {suite}\nComponents: main\n"
    assert _stanzas(stanza) == [f"Types: deb\nUris: {DEBIAN}\nSuites: {suite}\nComponents: main\n"]


@pytest.mark.parametrize(
    "line",
    [
        f"# deb {DEBIAN} bookworm main",
        f"deb-src {DEBIAN} bookworm main",
        f"deb {DEBIAN} trixie main",
        f"deb {DEBIAN} stable main",
        "deb http://pgdg.example/apt bookworm-pgdg main",
        "deb https://docker.example/linux/debian bookworm stable",
        "deb [arch=amd64 signed-by=/usr/share/keyrings/vendor.gpg] https://vendor.example/apt bookworm main",
        "deb cdrom:[Debian 12]/ bookworm main",
        "deb file:/srv/mirror bookworm main",
        "",
    ],
)
def test_lines_of_others_are_left_out(line: str) -> None:
    assert _lines(line) == []


def test_options_and_the_archives_own_key_are_kept() -> None:
    options = "[arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    line = f"deb {options} {DEBIAN} bookworm main"
    assert _lines(f"  deb   {options}  {DEBIAN}   bookworm  main   # the mirror next door") == [line]


@pytest.mark.parametrize(
    "change",
    [
        ("Types: deb", "Types: deb-src"),
        ("Components: main", "Components: main\nEnabled: no"),
        ("Suites: bookworm", "Suites: trixie sid"),
        ("Components: main", "Components: stable"),
        ("Components: main", "Components: main\nSigned-By: /etc/apt/keyrings/vendor.asc"),
        (DEBIAN, "cdrom:[Debian]/"),
    ],
)
def test_stanzas_of_others_are_left_out(change: tuple[str, str]) -> None:
    stanza = f"Types: deb\nURIs: {DEBIAN}\nSuites: bookworm\nComponents: main\n"
    assert len(_stanzas(stanza)) == 1
    assert _stanzas(stanza.replace(*change)) == []


def test_a_stanza_keeps_what_is_the_releases_own() -> None:
    kept = _stanzas(
        f"# by hand\nTypes: deb deb-src\n# an old mirror\nURIs: {DEBIAN}\nSuites: bookworm bookworm-pgdg trixie\n"
        "Components: main\n contrib\nEnabled: yes\n\n\nTypes: deb\nURIs: http://vendor.example\nSuites: ./\n"
    )
    assert kept == [f"Types: deb\nUris: {DEBIAN}\nSuites: bookworm\nComponents: main\n contrib\n"]


def test_a_list_of_mirrors_becomes_its_first(tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors.list"
    mirrors.write_text(f"{DEBIAN}\tpriority:1\nhttp://far.example/debian\n")
    assert _lines(f"deb mirror+file:{mirrors} bookworm main") == [f"deb {DEBIAN} bookworm main"]


def _host(etc: Path, release: str, sources: str) -> Path:
    (etc / "apt").mkdir(parents=True)
    (etc / "os-release").write_text(release)
    (etc / "apt/sources.list").write_text(sources)
    return etc


def test_a_host_is_read_whole(tmp_path: Path) -> None:
    etc = _host(tmp_path, 'ID=ubuntu\nVERSION_CODENAME="noble"\n', "deb http://mirror.example/ubuntu noble universe\n")
    (etc / "apt/sources.list.d").mkdir()
    (etc / "apt/sources.list.d/a.list").write_text("deb http://mirror.example/ubuntu noble-updates main\n")
    (etc / "apt/sources.list.d/b.sources").write_text(
        "Types: deb\nURIs: http://mirror.example/ubuntu\nSuites: noble-security\nComponents: main\n"
    )
    (etc / "apt/sources.list.d/c.list.disabled").write_text("deb http://mirror.example/ubuntu noble-backports main\n")
    found = host_sources(etc)
    assert (found.distribution, found.suite) == ("ubuntu", "noble")
    assert [line.split()[2] for line in found.lines] == ["noble", "noble-updates"]
    assert [stanza.splitlines()[2] for stanza in found.stanzas] == ["Suites: noble-security"]


@pytest.mark.parametrize(
    ("release", "sources", "said"),
    [
        ("ID=fedora\n", "", "fedora"),
        ("ID=debian\n", f"deb {DEBIAN} sid main\n", "apt sources"),
        ("ID=debian\nVERSION_CODENAME=bookworm\n", "deb http://vendor.example bookworm stable\n", "no entry"),
    ],
)
def test_a_host_that_cannot_be_copied_is_told_so(tmp_path: Path, release: str, sources: str, said: str) -> None:
    with pytest.raises(OverlaymigError, match=said) as caught:
        host_sources(_host(tmp_path, release, sources))
    assert caught.value.hint
