"""What a migration's folder holds beside what its author means, and what its scripts are refused for or warned of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.format import plan
from pyinfra_overlaymig.migration.folder import load, load_all
from pyinfra_overlaymig.migration.model import Migration

ID = "20240206-001_demo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A migration with a file and an executable."""
    made = tmp_path / "migrations" / ID
    (made / "files/etc/demo").mkdir(parents=True)
    (made / "migration.yaml").write_text("description: x\n")
    (made / "install.sh").write_text("#!/bin/sh\nset -eu\n:\n")
    (made / "files/etc/demo/conf").write_text("x")
    (made / "files/etc/demo/tool").write_text("#!/bin/sh\n")
    (made / "files/etc/demo/tool").chmod(0o755)
    return made


def modes(migration: Migration) -> dict[str, str]:
    return {one.path.removeprefix("files/"): f"{one.mode:04o}" for one in migration.members if "/" in one.path}


MINE = {"etc/demo/conf": "0644", "etc/demo/tool": "0755"}


def git(folder: Path, *words: str) -> None:
    argv: list[str | Path] = ["git", "-c", "user.name=x", "-c", "user.email=x@example.net", "-C", folder, *words]
    subprocess.run(argv, check=True, capture_output=True)


def refusal(folder: Path) -> InvalidMigration:
    with pytest.raises(InvalidMigration) as caught:
        load(folder)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store", "etc/.DS_Store", "etc/demo/conf~", "etc/demo/.conf.swp", "etc/demo/.conf.swo",
        "etc/demo/conf.swp",
        "etc/demo/#conf#", "etc/demo/.#conf", "etc/._conf", "etc/Thumbs.db", "desktop.ini", ".git/config",
        "opt/clone/.git/HEAD", "opt/clone/.hg/store", ".svn/entries", "only/.DS_Store", "etc/.nfs0000000012345678",
        "etc/.fuse_hidden0001", "__MACOSX~", ".directory",
    ],
)  # fmt: skip
def test_what_systems_and_editors_leave_is_not_the_migrations(folder: Path, name: str) -> None:
    """Its digest is that of the folder as it is committed."""
    before = load(folder)
    (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "files" / name).write_text("x")
    after = load(folder)
    assert modes(after) == MINE
    assert after.digest == before.digest


@pytest.mark.parametrize("name", [".gitkeep", ".gitignore", "a.swap", "~", "conf.orig", ".bashrc", "x.swo.conf", "#1"])
def test_what_an_author_may_mean_stays(folder: Path, name: str) -> None:
    (folder / "files/etc" / name).write_text("x")
    assert f"etc/{name}" in modes(load(folder)) or name == "~"


def test_what_git_ignores_is_not_the_migrations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rules of every level; what git has all the same stays, and what it has not yet as well."""
    top = folder.parent.parent
    git(top, "init", "-q")
    (top / ".gitignore").write_text("*.pyc\nnode_modules/\nsecret*\n")
    (folder / "files/.gitignore").write_text("/etc/demo/local\n")
    for name in (
        "a.pyc",
        "node_modules/x/y",
        "etc/demo/local",
        "etc/demo/secret \n\udcff",
        "etc/demo/secret-kept",
        "etc/new",
    ):
        (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / name).write_text("x")
    git(top, "add", "-f", f"{folder}/files/etc/demo/secret-kept")
    (folder / "files/etc/.DS_Store").write_text("x")
    wanted = MINE | dict.fromkeys((".gitignore", "etc/demo/secret-kept", "etc/new"), "0644")
    assert modes(load(folder)) == wanted
    (told,) = load(folder).warnings
    assert told.startswith("left out, as git ignores it: /a.pyc, /etc/demo/local, /etc/demo/secret ")
    assert told.endswith(", … (`git add -f` brings it)")
    # As from a hook of git's, and as root in the checkout of somebody else.
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    os.chown(top / ".git", 12345, 12345)
    os.chown(top, 12345, 12345)
    assert modes(load(folder)) == wanted
    # Of a folder that git is not to see at all it says nothing.
    (top / ".gitignore").write_text("/migrations/\n")
    git(top, "rm", "-q", "--cached", "-f", "-r", ".")
    assert "a.pyc" in modes(load(folder))


def test_modes_are_those_of_git(folder: Path) -> None:
    """A checkout on a file system without them is the same migration; the difference is told where it is one."""
    top = folder.parent.parent
    git(top, "init", "-q")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "x")
    before = load(folder)
    (folder / "files/etc/demo/tool").chmod(0o644)
    (folder / "files/etc/demo/conf").chmod(0o777)
    after = load(folder)
    assert (modes(after), after.digest) == (MINE, before.digest)
    assert [one.split(" ")[0] for one in after.warnings] == ["/etc/demo/conf", "/etc/demo/tool"]
    git(top, "config", "core.fileMode", "false")
    assert load(folder).warnings == ()
    git(top, "update-index", "--chmod=-x", f"{folder}/files/etc/demo/tool")
    assert modes(load(folder)) == dict.fromkeys(MINE, "0644")


def test_links_are_those_of_git(folder: Path) -> None:
    """Where the file system has none, git makes files that hold where they lead."""
    top = folder.parent.parent
    (folder / "files/etc/link").symlink_to("demo/../conf")
    before = load(folder)
    git(top, "init", "-q")
    git(top, "add", "-A")
    (folder / "files/etc/link").unlink()
    (folder / "files/etc/link").write_text("demo/../conf")
    git(top, "config", "core.symlinks", "false")
    assert load(folder).digest == before.digest


def test_without_git_the_checkout_counts(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert modes(load(folder)) == MINE


def test_modes_can_be_said(folder: Path) -> None:
    """By the path on the machine; they are part of what a migration is, and the runner takes them."""
    before = load(folder)
    said = 'description: x\nmodes:\n  /etc/demo/conf: "0600"\n  etc/demo/tool: "750"\n'
    (folder / "migration.yaml").write_text(said)
    migration = load(folder)
    assert modes(migration) == {"etc/demo/conf": "0600", "etc/demo/tool": "0750"}
    assert migration.digest != before.digest
    assert b"member 0600 " in migration.plan
    assert plan.parse(migration.plan.decode()).members == tuple(sorted(plan.parse(migration.plan.decode()).members))


@pytest.mark.parametrize(
    ("modes", "line", "said"),
    [
        ("{/etc/demo/conf: 0600}", 2, "quote it"),
        ('{/etc/demo/conf: "4755"}', 2, "cannot be '4755'"),
        ('{/etc/demo/conf: "rw"}', 2, "cannot be 'rw'"),
        ('\n  /etc/demo/conf: "0600"\n  /etc/demo/con: "0600"', 4, "did you mean `/etc/demo/conf`"),
        ('\n  /etc/demo/conf: "0600"\n  etc/demo/conf: "0640"', 4, "there twice"),
        ('{/etc/demo: "0700"}', 2, "files/ has no such file"),
        ('{/etc/../x: "0700"}', 2, "no path"),
        ('{/etc/demo/link: "0600"}', 2, "is a link"),
        ('["0600"]', 2, "mapping"),
    ],
)
def test_modes_that_cannot_be_are_refused_by_line(folder: Path, modes: str, line: int, said: str) -> None:
    (folder / "files/etc/demo/link").symlink_to("conf")
    (folder / "migration.yaml").write_text(f"description: x\nmodes: {modes}\n")
    error = refusal(folder)
    assert f"{folder}/migration.yaml:{line}: " in str(error)
    assert said in f"{error} {error.hint}"


@pytest.mark.parametrize("path", ["data/state/var/lib/x/conf", "data", "proc/sys/x", "sys/x/y"])
def test_a_file_where_no_layer_has_one_is_refused(folder: Path, path: str) -> None:
    """It would be gone with the stage, and nobody would say so."""
    file = folder / "files" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")
    error = refusal(folder)
    assert f"{file}: nothing of a migration can lie in /{path.partition('/')[0]}" in str(error)
    assert ("state path" if path.startswith("data") else "`prepare`") in error.hint


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "-----BEGIN RSA PRIVATE KEY-----\nx",
        "-----BEGIN PRIVATE KEY-----\nx",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "AGE-SECRET-KEY-1QQ\n",
        "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\nx\n",
        "PuTTY-User-Key-File-3: ssh-ed25519\n",
    ],
)  # fmt: skip
def test_a_private_key_for_everybody_is_warned_of(folder: Path, key: str) -> None:
    """By what it holds, not by its name; with what to write."""
    (folder / "files/etc/demo/conf").write_text(key)
    (warning,) = load(folder).warnings
    assert warning.startswith("/etc/demo/conf holds a private key that everybody could read (0644)")
    assert 'modes: {/etc/demo/conf: "0600"}' in warning
    for mode in ("0600", "0640"):
        (folder / "migration.yaml").write_text(f'description: x\nmodes: {{/etc/demo/conf: "{mode}"}}\n')
        assert load(folder).warnings == ()
    (folder / "migration.yaml").write_text("description: x\n")
    for other in (
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\n",
        "x: -----BEGIN PRIVATE KEY-----\n",
    ):
        (folder / "files/etc/demo/conf").write_text(other)
        assert load(folder).warnings == ()


@pytest.mark.parametrize("name", ["files/etc/demo/conf", "install.sh", "migration.yaml", "files/etc"])
def test_what_cannot_be_read_is_named_with_a_remedy(folder: Path, name: str, tmp_path: Path) -> None:
    """Whoever is not root may not read everything that is there."""
    # Where tests run in several processes, pytest's own directories are one deeper.
    for above in (*tmp_path.parents, tmp_path, folder.parent, folder):
        if not above.stat().st_mode & 0o001:
            above.chmod(0o755)
    (folder / name).chmod(0)
    code = (
        "import os, sys; from pyinfra_overlaymig.migration.folder import load; os.setuid(65534)\n"
        "from pyinfra_overlaymig.errors import InvalidMigration\n"
        "try: load(sys.argv[1])\n"
        "except InvalidMigration as error: print(error, '|', error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"{folder}/{name}: cannot be read: permission denied"), done.stdout + done.stderr
    assert "chmod" in done.stdout


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"\xef\xbb\xbf#!/bin/sh\n", 1, "byte order mark of UTF-8"),
        ("#!/bin/sh\n".encode("utf-16"), 1, "byte order mark of UTF-16"),
        (b"set -eu\napt-get install -y x\n", 1, "does not say what runs it"),
        (b"", 1, "does not say what runs it"),
        (b"\n#!/bin/sh\n", 1, "does not say what runs it"),
        (b"#!\nx\n", 1, "does not say what runs it"),
        (b"#!sh\n", 1, "no path"),
        (b"#!/bin/sh\r\nset -eu\r\n", None, "DOS line ends"),
        (b"#!/bin/sh\nset -eu\nif true; then\n  echo x\n", None, "no sh as it stands"),
        (b"#!/bin/sh\nset -eu\necho 'x\n", None, "no sh as it stands"),
        (b"#!/bin/sh\nset -eu\n:\nfi\n:\n", 4, "no sh as it stands"),
        (b"#!/bin/bash -e\n:\na=(1 2\n", None, "no bash as it stands"),
        (b"#!/usr/bin/env -S bash -e\ncase x in\n", None, "no bash as it stands"),
        (b"#!/usr/bin/env python3\nx = 1\nif x\n", 3, "no Python as it stands"),
        (b"#!/usr/bin/python3.11\nreturn 1\n", 2, "no Python as it stands"),
        (b"#!/bin/sh\necho \0\n", None, "NUL"),
    ],
)
@pytest.mark.parametrize("name", ["install.sh", "verify.sh"])
def test_a_script_that_nothing_could_run_is_refused_before_any_machine(
    folder: Path, name: str, content: bytes, line: int | None, said: str
) -> None:
    (folder / name).write_bytes(content)
    error = refusal(folder)
    assert str(error).startswith(f"{folder}/{name}:")
    assert said in str(error)
    assert error.line == line or line is None


@pytest.mark.parametrize(
    "content",
    [
        "#!/bin/bash\nset -e\na=(1 2); [[ $a ]] && echo <(true)\n", "#! /bin/sh -eu\n:\n",
        "#!/usr/bin/env python3\nprint(1)\n",
        "#!/usr/bin/perl\nif (\n", "#!/opt/own/interpreter\n$$$(\n", "#!/usr/bin/env -S PATH=/x sh -e\n:\n",
        "#!/bin/sh\nset -o errexit\n:\n", "#!/bin/sh\n# comment\nset -ux -e\n:\n", "#!/bin/sh\ncd / && set -e\n",
    ],
)  # fmt: skip
def test_what_may_run_is_taken_without_a_word(folder: Path, content: str) -> None:
    """Nothing of it runs here; an interpreter that is not here, or cannot look without running, is not asked."""
    (folder / "install.sh").write_text(content)
    assert load(folder).warnings == ()


@pytest.mark.parametrize(
    "script",
    [
        "apt-get update\napt-get install -y x", "echo 'set -e'", "# set -e\n:", "cat <<END\nset -e\nEND",
        "set -u\n:", "set +e\n:",
    ],
)  # fmt: skip
def test_a_script_that_goes_on_after_a_failure_is_warned_of(folder: Path, script: str) -> None:
    (folder / "install.sh").write_text(f"#!/bin/sh\n{script}\n")
    (warning,) = load(folder).warnings
    assert "install.sh goes on after a command that fails" in warning
    assert "set -eu" in warning
    # A health check of one command ends as that does.
    (folder / "install.sh").write_text("#!/bin/sh\nset -eu\n:\n")
    (folder / "verify.sh").write_text("#!/bin/sh\ngrep -q x /etc/x\n")
    assert load(folder).warnings == ()
    (folder / "verify.sh").write_text("#!/bin/sh\ngrep -q x /etc/x\ntrue\n")
    assert len(load(folder).warnings) == 1


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("read answer", 3), ("read -r -p 'Go on? ' answer", 3), ("if read -r x; then :; fi", 3),
        ("IFS= read -r line", 3),
        ("x=1\nwhile read line; do :; done", 4), ("cat >/etc/x", 3), ("cat", 3), ("x=$(cat)", 3),
        ("read x </dev/tty", 3),
        ("apt-get install nginx", 3), ("DEBIAN_FRONTEND=noninteractive apt-get -q install nginx", 3),
        ("apt upgrade", 3),
        ("apt-get update && apt-get dist-upgrade", 3), ("passwd root", 3), ("adduser bob", 3),
        ("apt-get \\\n  install nginx", 3), ("while read x; do :; done; read y </dev/stdin", 3),
    ],
)  # fmt: skip
def test_a_script_that_reads_standard_input_is_warned_of(folder: Path, line: str, number: int) -> None:
    """There is nothing to read, and nobody to answer."""
    (folder / "install.sh").write_text(f"#!/bin/sh\nset -eu\n{line}\n")
    (warning,) = load(folder).warnings
    assert warning.startswith(f"install.sh:{number} ")
    assert "nobody answers" in warning or "standard input" in warning


@pytest.mark.parametrize(
    "line",
    [
        "read x <<END\n1\nEND", "while read -r x; do :; done </etc/passwd", "ls | while read -r x; do :; done",
        "while read -r x\ndo\n:\ndone <<END\nEND", "cat <<'END' >/etc/x\nread answer\nEND",
        "cat <<-END\n\tread x\n\tEND",
        "cat /etc/passwd", "echo x | cat >/etc/x", "apt-get install -y x", "apt-get -qqy install x",
        "apt-get -y -qq install x",
        "apt-get install --yes x", "yes | apt-get install x", "apt-get update", "apt-get install -qq x", "apt list",
        "printf x | passwd --stdin root", "echo 'please read this'", "readlink /x", "# read x", "adduser --system bob",
        "adduser --disabled-password --gecos '' bob", "passwd -l root", "catalog x", "echo read",
        "apt-cache search install",
        "grep read /etc/x", "IFS=: read -r a b <<END\n1:2\nEND", "apt-get install -s x",
        "exec </etc/passwd\nread -r x", "apt-mark hold x", "dpkg -i x.deb", "systemd-cat true",
    ],
)  # fmt: skip
def test_a_script_that_reads_something_else_is_not(folder: Path, line: str) -> None:
    (folder / "install.sh").write_text(f"#!/bin/sh\nset -eu\n{line}\n")
    assert load(folder).warnings == ()


def test_a_python_script_that_asks_is_warned_of(folder: Path) -> None:
    (folder / "install.sh").write_text("#!/usr/bin/python3\nprint(1)  # input()\nx = input('Go on?')\n")
    assert load(folder).warnings == ("install.sh:3 reads standard input, which has nothing to read",)


@pytest.mark.parametrize("key", ["run", "prepare", "finish", "check"])
def test_what_a_service_says_in_sh_is_looked_at_too(folder: Path, key: str) -> None:
    """With the line of the manifest."""
    others = "" if key == "run" else "    run: exec sleep 1\n"
    text = f"description: x\nservices:\n  web:\n{others}    {key}: if true; then echo 'x'\n"
    (folder / "migration.yaml").write_text(text)
    error = refusal(folder)
    assert f"migration.yaml:{text.count(chr(10))}: `services.web.{key}` is no sh as it stands" in str(error)


@pytest.mark.parametrize(
    "name",
    ["CHANGELOG.md", "README.md", "notes.txt", "LICENSE", "Makefile", ".gitignore", "graph.svg", ".hooks.yaml"],
)
def test_what_lies_beside_migrations_is_none(folder: Path, name: str) -> None:
    """Only what looks as if it were to be one is refused: any other directory, and a file with a date."""
    (folder.parent / name).write_text("x")
    (folder / "CHANGELOG.md").write_text("x")
    assert [one.id for one in load_all(folder.parent)] == [ID]
    (folder.parent / "20240207-001_next.sh").write_text("x")
    with pytest.raises(InvalidMigration, match="20240207-001_next"):
        load_all(folder.parent)
