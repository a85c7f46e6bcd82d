from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.format.ids import valid_id
from pyinfra_overlaymig.format.octal import escape, escape_text, unescape, unescape_text
from pyinfra_overlaymig.migration.folder import ids_in, load, load_all
from pyinfra_overlaymig.migration.model import Migration, Service

ID = "20240206-001_add_postgresql"
FULL = """\
description: everything
depends: [20240101-001_base]
conflicts: [20240101-002_other]
state: [/var/lib/b/, "/srv/a b"]
stop: [cron]
timeout: 60
verify_timeout: 5
services:
  web:
    run: exec web
    prepare: mkdir -p /run/web
    finish: echo bye
    user: www-data
    check: web-ping
    ready_timeout: 7
    environment: {PORT: "8080", EMPTY: ""}
    down_signal: int
    timeout_kill: 3000
    max_death_tally: 9
    needs: [db]
    restart: always
  db:
    run: db --foreground
    notification_fd: 4
"""


def folder(tmp_path: Path, manifest: str = "description: x\n", id: str = ID) -> Path:
    path = tmp_path / id
    path.mkdir(parents=True)
    (path / "migration.yaml").write_text(manifest)
    (path / "install.sh").write_text("#!/bin/sh\n")
    return path


def refusal(path: Path) -> InvalidMigration:
    with pytest.raises(InvalidMigration) as caught:
        load(path)
    assert caught.value.hint
    assert caught.value.exit_code == 4
    return caught.value


def test_manifest_of_a_thousand_levels_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, "description: " + 1000 * "[" + 1000 * "]")
    with pytest.raises(InvalidMigration, match="nested too deeply"):
        load(path)


@given(st.binary())
def test_escapes_round_trip_over_bytes(value: bytes) -> None:
    """Any bytes survive a field of the plan, which is printable ASCII without a blank."""
    field = escape(value)
    assert unescape(field) == value
    assert field
    assert all(0x21 <= ord(char) <= 0x7E and char != '"' for char in field)


@given(st.binary().map(os.fsdecode))
def test_escapes_round_trip_over_file_names(name: str) -> None:
    """A name that is no UTF-8 survives as the surrogate escapes that Python reads it as."""
    assert unescape_text(escape_text(name)) == name


@given(st.text())
def test_only_escaped_fields_are_unescaped(text: str) -> None:
    """Whatever is read back was written by us: every field has one spelling."""
    try:
        value = unescape(text)
    except ValueError:
        return
    assert unescape(escape(value)) == value


@given(
    st.dates().map(lambda day: day.strftime("%4Y%m%d").zfill(8)),
    st.integers(0, 999),
    st.from_regex(r"[a-z0-9][a-z0-9_]{0,63}", fullmatch=True),
)
def test_every_date_number_and_label_is_an_id(day: str, number: int, label: str) -> None:
    """Ids are dates of the calendar, a number and a label."""
    assert valid_id(f"{day}-{number:03}_{label}")


@pytest.mark.parametrize(
    "text",
    ["20240230-001_x", "20240206-1_x", "20240206-001", "20240206-001_X", "20240206-001_", "../x",
     "20240206-001_x\n", "20240206-001_" + "x" * 65, "\uff120240206-001_x"],
)  # fmt: skip
def test_nothing_else_is_an_id(text: str) -> None:
    """Ids are safe as names of files, and sort as dates do."""
    assert not valid_id(text)


def test_a_whole_manifest_is_read(tmp_path: Path) -> None:
    """Every documented key arrives where it belongs."""
    path = folder(tmp_path, FULL)
    one = load(path)
    web, db = one.services
    assert (one.id, one.description, one.timeout, one.verify_timeout) == (ID, "everything", 60, 5)
    assert one.state == ("/var/lib/b", "/srv/a b")
    assert web == Service(
        name="web", run="exec web", prepare="mkdir -p /run/web", finish="echo bye",
        user="www-data", check="web-ping", ready_timeout=7, down_signal="SIGINT",
        environment=(("PORT", "8080"), ("EMPTY", "")), timeout_kill=3000,
        max_death_tally=9, needs=("db",), restart="always",
    )  # fmt: skip
    assert db == Service(name="db", run="db --foreground", notification_fd=4)


@pytest.mark.parametrize(
    ("manifest", "line", "said", "hint"),
    [
        ("description: x\ndepend: []\n", 2, "unknown key `depend`", "`depends`"),
        ("description: x\ndescription: y\n", 2, "given twice", "keep one"),
        ("", 1, "is empty", "description"),
        ("- a\n", 1, "must be a mapping", "key: value"),
        ("description: ''\n", 1, "`description` is empty", "give it a value"),
        ("timeout: 3\n", 1, "`description` is missing", "add"),
        ("description: x\ntimeout: 0\n", 2, "`timeout` cannot be 0", "from 1 to 86400"),
        ("description: x\ndepends: 20240101-001_x\n", 2, "`depends` must be a list", "- item"),
        ("description: x\ndepends: [nonsense]\n", 2, "'nonsense' is no migration id", "like 2024"),
        (f"description: x\ndepends: [{ID}]\n", 2, "names the migration itself", "leave it out"),
        ("description: x\ndepends: [20240101-001_a, 20240101-001_a]\n", 2, "twice", "keep one"),
        ("description: x\nstate: [var/lib/x]\n", 2, "is not absolute", "/var/lib/"),
        ("description: x\nstate: [/var/lib/../x]\n", 2, "has `..` in it", "/var/lib/"),
        ("description: x\nstate: [/]\n", 2, "cannot be state", "directory"),
        ("description: x\nstate: [/data/x]\n", 2, "cannot be state", "directory"),
        ("description: x\nstate: [/var/lock/x]\n", 2, "cannot be state", "directory"),
        ("description: x\nstate: [/services/x]\n", 2, "the marks of services", "another directory"),
        ("description: x\nstate: [/var/lib/dpkg/info]\n", 2, "belongs to the system", "narrower"),
        ("description: x\nstate: [/var]\n", 2, "belongs to the system", "narrower"),
        ("description: x\nstate: [/etc]\n", 2, "touches /etc/s6, which belongs to the system", "like /etc/postgresql"),
        ("description: x\nstate: [/etc/s6/services]\n", 2, "belongs to the system", "narrower"),
        ("description: x\nstate: [/usr]\n", 2, "belongs to the system", "narrower"),
        ("description: x\nstate: [/lib/modules]\n", 2, "belongs to the system", "narrower"),
        ("description: x\nstate: [/boot]\n", 2, "belongs to the system", "narrower"),
        *(
            (f"description: x\nstate: [{path}]\n", 2, "belongs to the system", "narrower")
            for path in ("/usr/lib", "/usr/lib/x", "/usr/local", "/usr/share", "/etc/pam.d", "/bin/")
        ),
        ("description: x\nstate:\n  - /srv/a\n  - /srv/a/b\n", 4, "overlap", "outer"),
        ("description: x\nstate:\n  - /srv/a\nstate_links:\n  - /srv/b\n", 5, "no state path", "under `state`"),
        ("description: x\nservices:\n  A b: {run: x}\n", 3, "is no service name", "postgresql"),
        ("description: x\nservices:\n  a: {user: x}\n", 3, "has no `run`", "command"),
        ("description: x\nservices:\n  a: {run: x, user: 'a b'}\n", 3, "cannot be 'a b'", "postgres"),
        ("description: x\nservices:\n  a: {run: x, notification_fd: 2}\n", 3, "cannot be 2", "from 3"),
        ("description: x\nservices:\n  a:\n    run: x\n    environment: {1A: b}\n", 5, "no variable name", "PGDATA"),
        ("description: x\nstop: ['-rf']\n", 2, "cannot be '-rf'", "postgresql"),
        ("description: [x\n", 2, "is no YAML", "quotes"),
        ('description: "x\\x1b[31m"\n', 1, "holds control characters", "terminals"),
        ("description: x\nservices:\n  a:\n    runn: x\n", 4, "unknown key `runn` in `services.a`", "`run`"),
        ("description: x\ntimeout: soon\n", 2, "`timeout` must be a whole number", "from 1 to"),
        ("description: x\nservices:\n  a: {run: x, down_signal: BYE}\n", 3, "no signal", "INT"),
        (
            "description: x\nservices:\n  a:\n    run: x\n    check: y\n    notification_fd: 3\n",
            5, "exclude each other", "poll",
        ),
        (
            "description: x\nservices:\n  a:\n    run: x\n    environment: {PORT: 80}\n",
            5, "must be text", '"80"',
        ),
        ("description: x\nservices:\n  a:\n    run: x\n    needs: [a]\n", 5, "needs itself", "leave it out"),
        ("description: x\nservices:\n  a: {run: x, needs: [../b]}\n", 3, "cannot be '../b'", "postgresql"),
        ("description: x\nservices:\n  a: {run: x, restart: no}\n", 3, "must be text", '"no"'),
        ("description: x\nservices:\n  a: {run: x, restart: maybe}\n", 3, "is 'maybe'", "always, changed, never"),
        ("description: x\nservices:\n  a: {run: x, max_death_tally: 5000}\n", 3, "cannot be 5000", "to 4096"),
        ("description: x\ndrift: keep\n", 2, "`drift` is 'keep'", "refuse, adopt, discard"),
        ("description: x\nsnapshot: true\n", 2, "needs `state`", "name the state paths"),
        ("description: x\nstate: [/srv/x]\nsnapshot: 1\n", 3, "must be true or false", "`true`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_line_and_remedy(
    tmp_path: Path, manifest: str, line: int, said: str, hint: str
) -> None:
    """A manifest that cannot be used is refused at the line that is wrong, with what to do."""
    path = folder(tmp_path, manifest)
    error = refusal(path)
    assert str(error).startswith(f"{path}/migration.yaml:{line}: ")
    assert said in str(error)
    assert hint in error.hint


def test_a_manifest_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and control characters, are refused and not guessed at."""
    path = folder(tmp_path)
    for content in (b"description: \xff\n", b"description: \x01\n"):
        (path / "migration.yaml").write_bytes(content)
        assert str(refusal(path)).startswith(f"{path}/migration.yaml: ")


def test_parts_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    """A misspelt script is not silently left out."""
    path = folder(tmp_path)
    (path / "verfy.sh").write_text("")
    assert "`verify.sh`" in refusal(path).hint
    (path / "verfy.sh").unlink()
    (path / "install.sh").unlink()
    assert "install.sh: is missing" in str(refusal(path))
    (path / "install.sh").symlink_to("/etc/passwd")
    assert "must be a regular file" in str(refusal(path))


def test_dos_line_ends_are_refused(tmp_path: Path) -> None:
    """A script that sh would misread is refused before a machine sees it."""
    path = folder(tmp_path)
    (path / "install.sh").write_bytes(b"#!/bin/sh\r\n")
    assert "DOS" in str(refusal(path))


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    """Fifos and devices, and directories that git would lose, cannot be in files/."""
    path = folder(tmp_path)
    (path / "files/etc").mkdir(parents=True)
    assert "empty directory" in str(refusal(path))
    os.mkfifo(path / "files/etc/pipe")
    assert "neither a file" in str(refusal(path))


def test_links_are_kept_and_never_followed(tmp_path: Path) -> None:
    """A link's target is text, wherever it points to, and stays as it was written."""
    path = folder(tmp_path)
    (path / "files").mkdir()
    (path / "files/out").symlink_to("../../../../etc//passwd")
    (path / "files/loop").symlink_to("loop")
    one = load(path)
    assert [(link.path, link.target) for link in one.links] == [
        ("files/loop", "loop"),
        ("files/out", "../../../../etc//passwd"),
    ]
    assert b"link ../../../../etc//passwd files/out\n" in one.plan


def test_names_of_any_bytes_are_in_the_plan(tmp_path: Path) -> None:
    """A name with blanks, newlines and bytes that are no UTF-8 is one field of the plan."""
    path = folder(tmp_path)
    (path / "files").mkdir()
    (Path(os.fsdecode(os.fsencode(path) + b"/files/a \n\xff"))).write_text("x")
    assert b" files/a\\040\\012\\377\n" in load(path).plan


def test_the_digest_covers_what_matters_and_nothing_else(tmp_path: Path) -> None:
    """Where a migration lies, its waits and its words do not change its digest; its result does."""
    one = load(folder(tmp_path / "a", FULL))
    waits = (
        FULL.replace("timeout: 60", "timeout: 61")
        .replace("ready_timeout: 7", "ready_timeout: 8")
        .replace(" always", " never")
    )
    same = load(folder(tmp_path / "b", waits.replace("everything", "all")))
    assert same.digest == one.digest
    for old, new in (("exec web", "exec wob"), ("srv", "var"), ("8080", "8081"), ("cron", "atd"), ("y: 9", "y: 8")):
        path = folder(tmp_path / new.replace(" ", ""), FULL.replace(old, new))
        assert load(path).digest != one.digest


def test_the_digest_covers_files_and_their_exec_bit(tmp_path: Path) -> None:
    """A changed file, mode or link target is another migration; a script's mode is not."""
    path = folder(tmp_path)
    (path / "files").mkdir()
    (path / "files/tool").write_text("x")
    digests = [load(path).digest]
    (path / "files/tool").chmod(0o755)
    digests.append(load(path).digest)
    (path / "files/tool").write_text("y")
    digests.append(load(path).digest)
    (path / "files/tool").unlink()
    (path / "files/tool").symlink_to("y")
    digests.append(load(path).digest)
    assert len(set(digests)) == 4
    (path / "install.sh").chmod(0o755)
    assert load(path).digest == digests[-1]


@given(st.permutations(["/a", "/b", "/c d"]), st.permutations(["20240101-001_a", "20240101-002_b"]))
def test_the_order_in_a_manifest_does_not_matter(state: list[str], depends: list[str]) -> None:
    """The plan is canonical: the same sets are the same bytes."""
    one, other = (
        Migration(id=ID, folder=Path(), description="x", state=tuple(a), depends=tuple(b))
        for a, b in ((state, depends), (sorted(state), sorted(depends)))
    )
    assert one.plan == other.plan


def test_a_folder_loads_in_the_order_of_ids(tmp_path: Path) -> None:
    """All migrations of a folder come sorted; notes and hidden files do not disturb."""
    for id in ("20240301-001_c", "20240101-001_a", "20240101-002_b"):
        folder(tmp_path, id=id)
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".gitignore").write_text("*~\n")
    ids = [one.id for one in load_all(tmp_path)]
    assert ids == ["20240101-001_a", "20240101-002_b", "20240301-001_c"]


def test_a_folder_with_anything_else_is_refused(tmp_path: Path) -> None:
    """A badly named migration, or a number given twice, is named instead of being left out."""
    folder(tmp_path, id="20240101-001_a")
    twin = folder(tmp_path, id="20240101-001_b")
    with pytest.raises(InvalidMigration, match="20240101-001_b and 20240101-001_a have the same"):
        load_all(tmp_path)
    shutil.move(twin, tmp_path / "20240131-1_b")
    with pytest.raises(InvalidMigration, match="'20240131-1_b' is no migration id"):
        load_all(tmp_path)
    with pytest.raises(InvalidMigration, match="no such folder"):
        load_all(tmp_path / "none")


def test_files_beside_the_migrations_are_no_migrations(tmp_path: Path) -> None:
    """A changelog, a licence, a script for people; what is named like a migration was meant to be one."""
    folder(tmp_path, id="20240101-001_a")
    for name in ("CHANGELOG.md", "Makefile", "notes.txt", "new.sh"):
        (tmp_path / name).write_text("for people\n")
    assert [one.id for one in load_all(tmp_path)] == ["20240101-001_a"]
    assert ids_in(tmp_path) == {"20240101-001_a"}
    assert ids_in(tmp_path / "none") == frozenset()
    (tmp_path / "20240101-002_b").write_text("a file\n")
    with pytest.raises(InvalidMigration, match="no such migration"):
        load_all(tmp_path)
    (tmp_path / "20240101-002_b").unlink()
    (tmp_path / "20240101-002_b").symlink_to("/nowhere")
    with pytest.raises(InvalidMigration, match="no such migration") as caught:
        load_all(tmp_path)
    assert caught.value.hint == "it is a link to /nowhere, where nothing is"
    (tmp_path / "20240101-002_b").unlink()
    (tmp_path / "templates").mkdir()
    with pytest.raises(InvalidMigration, match="'templates' is no migration id"):
        load_all(tmp_path)


@pytest.mark.parametrize(
    ("text", "strict"), [(None, False), ("strict_order: true\n", True), ("strict_order: off", False)]
)
def test_a_folder_says_whether_its_order_is_strict(tmp_path: Path, text: str | None, strict: bool) -> None:
    """It goes with each bundle, alone or with the rest, and is no part of what a migration is."""
    path = folder(tmp_path)
    digest = load(path).digest
    if text is not None:
        (tmp_path / "migrations.yaml").write_text(text)
    for one in (load(path), *load_all(tmp_path)):
        assert one.strict_order is strict
        assert f"strict-order {'yes' if strict else 'no'}\n" in one.limits.decode()
        assert one.digest == digest


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("migrations.yaml", "# nothing\n", r"migrations.yaml:1: is empty"),
        ("migrations.yaml", "\nstrict_ordr: true\n", r"migrations.yaml:2: unknown key `strict_ordr`"),
        ("migrations.yaml", "strict_order: 1\n", r"migrations.yaml:1: `strict_order` must be true or false"),
        ("migrations.yaml", "- strict_order\n", r"migrations.yaml:1: the folder's settings must be a mapping"),
        (
            "migrations.yaml",
            "strict_order: true\nstrict_order: true\n",
            r"migrations.yaml:2: key `strict_order` is given",
        ),
        ("migrations.yml", "strict_order: true\n", r"migrations.yml: does not belong here"),
        ("migration.yaml", "description: x\n", r"migration.yaml: does not belong here"),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    """With file and line, for a migration alone too: a typo must not make a strict folder a lenient one."""
    path = folder(tmp_path)
    (tmp_path / name).write_text(text)
    for read in (lambda: load(path), lambda: load_all(tmp_path)):
        with pytest.raises(InvalidMigration, match=words):
            read()


def test_a_missing_migration_names_the_nearest(tmp_path: Path) -> None:
    """A misspelt path is answered with a "did you mean"."""
    folder(tmp_path)
    assert f"`{ID}`" in refusal(tmp_path / ID.replace("postgresql", "postgres")).hint
