"""What audit wrote is read as it was meant: who did it, to which name, in which order; and told as FORMAT.md has it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest

from pyinfra_overlaymig.format import who
from pyinfra_overlaymig.format.changes import parse as parse_change
from pyinfra_overlaymig.runner.audit import explaining, hold, packages, places
from pyinfra_overlaymig.runner.audit.captured import touched
from pyinfra_overlaymig.runner.audit.explain import Done
from pyinfra_overlaymig.runner.audit.fields import value
from pyinfra_overlaymig.runner.audit.holder import Holder
from pyinfra_overlaymig.runner.audit.records import Event, Reader

DEVICE = "00:36"
SH, CP, MV = "/usr/bin/dash", "/usr/bin/cp", "/usr/bin/mv"


class Log:
    """Writes records as the kernel does."""

    def __init__(self, session: int = 7) -> None:
        self.session = session
        self.serial = 100
        self.lines: list[str] = []

    def add(self, kind: str, text: str) -> None:
        self.lines.append(f"type={kind} msg=audit(1795820184.301:{self.serial}): {text}")

    def call(self, pid: int, ppid: int, program: str, key: str, items: int = 0, **more: str) -> None:
        self.serial += 1
        ids = "auid=0 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none)"
        named = f'key="migration_tracking-{key}"' if key else "key=(null)"
        first = f"a0={more.get('a0', 'ffffff9c')} a1=7ffc a2=241 a3=0"
        self.add(
            "SYSCALL",
            f"arch=c000003e {more.get('person', '')}syscall=257 success=yes exit=3 {first} items={items} "
            f'ppid={ppid} pid={pid} {ids} ses={self.session} comm="x" exe={written(program)} {named}',
        )

    def path(self, kind: str, inode: int, name: str, *, mode: str = "0100644", device: str = DEVICE) -> None:
        known = f"inode={inode} dev={device} mode={mode} ouid=0 ogid=0 rdev=00:00"
        self.add("PATH", f"item=0 name={written(name)} {known} nametype={kind} cap_fp=0")

    def execute(self, pid: int, ppid: int, program: str, *words: str) -> None:
        self.call(pid, ppid, program, "process", 2)
        self.add("EXECVE", " ".join([f"argc={len(words)}", *(f'a{n}="{word}"' for n, word in enumerate(words))]))
        self.path("NORMAL", 1, program)

    def make(self, process: tuple[int, int, str], inode: int, above: int, name: str) -> None:
        self.call(*process, "content", 2)
        self.path("PARENT", above, f"{name.rpartition('/')[0]}/", mode="040755")
        self.path("CREATE", inode, name)


def written(name: str) -> str:
    if name.startswith("("):
        return name
    return f'"{name}"' if name.isascii() and " " not in name else hexed(name)


def hexed(name: str) -> str:
    return os.fsencode(name).hex().upper()


def read(log: Log, runner: str = "") -> Reader:
    reader = Reader("7", {DEVICE}, runner)
    reader.take(log.lines)
    return reader


def told(event: Event) -> tuple[str, str, str]:
    return event.kind, event.path or f"{event.above}/{event.name}", event.what


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ('name="/etc/x"', "/etc/x"),
        ('name="a\\b"', "a\\134b"),
        ("name=(null)", ""),
        (f"name={hexed('/a b')}", "/a\\040b"),
        ("name=2FC3A4", "/Ã¤"),
        ("name=0A2F09", "\\012/\\011"),
        ("name=ABC", ""),
    ],
)
def test_values(word: str, text: str) -> None:
    assert value(word) == text


def test_program_and_its_parents() -> None:
    """A script, the shell that it forks, and the program that this becomes."""
    log = Log()
    log.execute(10, 5, SH, "sh", "/run/migration/install.sh")
    log.call(10, 5, SH, "process")
    log.execute(11, 10, CP, "cp", "a", "b")
    log.make((11, 10, CP), 20, 2, "/etc/b")
    reader = read(log)
    assert [(one.number, one.parent, one.pid, one.program, one.arguments) for one in reader.processes.all] == [
        (1, 0, "10", SH, "sh /run/migration/install.sh"),
        (2, 1, "11", CP, "cp a b"),
    ]
    assert [(told(one), one.by) for one in reader.events] == [(("C", "/etc/b", "w"), 2)]
    assert reader.seen == 4


def test_record_of_a_vfork_comes_after_the_child() -> None:
    log = Log()
    log.execute(11, 10, CP, "cp")
    log.call(10, 5, SH, "process")
    one, two = read(log).processes.all
    assert (one.program, one.parent, two.program) == (CP, 2, SH)


def test_pid_that_is_given_out_again() -> None:
    """Of the same program, with another parent: another process."""
    log = Log()
    log.execute(9, 1, SH, "sh")
    log.execute(10, 9, SH, "sh", "-c", "first")
    log.execute(12, 9, SH, "sh", "-c", "other")
    log.call(10, 12, SH, "process")
    found = read(log).processes.all
    assert [one.parent for one in found] == [0, 1, 1, 3]


def test_program_in_another_root_or_deleted_is_the_same() -> None:
    log = Log()
    log.execute(10, 9, "/stage/root/usr/bin/tool", "tool")
    log.call(10, 9, "/usr/bin/tool", "process")
    log.call(10, 9, "/usr/bin/tool (deleted)", "process")
    assert len(read(log).processes.all) == 1


def test_process_one_of_a_stage_is_the_runner() -> None:
    """It is called system-migrate, and takes over whose parent has ended. In a capture, it is not told of."""
    log = Log()
    log.add("LOGIN", "pid=40 uid=0 old-auid=4294967295 auid=0 tty=(none) old-ses=4294967295 ses=7 res=1")
    log.serial -= 1
    log.call(40, 39, "/usr/bin/python3.11", "")
    log.call(40, 39, "/usr/bin/python3.11", "process")
    log.execute(41, 40, SH, "/bin/sh", "/run/migration/install.sh")
    log.execute(43, 42, CP, "cp")
    log.call(43, 40, CP, "process")
    found = read(log, "system-migrate apply 20250101-001_x").processes.all
    assert [(one.pid, one.parent, one.arguments) for one in found] == [
        ("40", 0, "system-migrate apply 20250101-001_x"),
        ("41", 1, "/bin/sh /run/migration/install.sh"),
        ("43", 0, "cp"),
    ]
    log = Log()
    log.add("LOGIN", "pid=40 uid=0 old-auid=4294967295 auid=0 tty=(none) old-ses=4294967295 ses=7 res=1")
    log.serial -= 1
    log.call(40, 39, "/usr/bin/python3.11", "")
    log.execute(40, 39, SH, "sh", "-c", "x")
    assert [one.arguments for one in read(log).processes.all] == ["sh -c x"]


def test_process_one_of_a_stage_that_a_runner_in_sh_has_left() -> None:
    log = Log()
    log.execute(40, 39, SH, "/bin/sh", "/x/stage/init.sh", "/x", "20250101-001_x")
    log.execute(43, 42, CP, "cp")
    log.call(43, 40, CP, "process")
    reader = read(log, "system-migrate apply 20250101-001_x")
    assert reader.processes.reaper == "40"
    assert len(reader.processes.all) == 2


def test_rename_has_two_directories() -> None:
    """Each name lies in the one that it begins with; where names tell nothing, the new one comes first."""
    log = Log()
    log.call(10, 1, MV, "content", 4)
    log.path("PARENT", 2, "/new/", mode="040755")
    log.path("PARENT", 3, "/old/", mode="040755")
    log.path("DELETE", 20, "/old/x")
    log.path("CREATE", 20, "/new/y")
    log.call(10, 1, MV, "content", 4, a0="3")
    log.path("PARENT", 2, "dir", mode="040755")
    log.path("PARENT", 3, "dir", mode="040755")
    log.path("DELETE", 21, "x")
    log.path("CREATE", 21, "y")
    assert [(one.kind, one.above, one.name, one.path) for one in read(log).events] == [
        ("D", "3", "x", "/old/x"),
        ("C", "2", "y", "/new/y"),
        ("D", "3", "x", ""),
        ("C", "2", "y", ""),
    ]


def test_link_changes_nothing_in_what_it_links() -> None:
    log = Log()
    log.call(10, 1, "/usr/bin/ln", "content", 3)
    log.path("NORMAL", 20, "/etc/one")
    log.path("PARENT", 2, "/etc/", mode="040755")
    log.path("CREATE", 20, "/etc/two")
    assert [told(one) for one in read(log).events] == [("L", "/etc/two", "w")]


def test_relative_paths() -> None:
    """To the working directory where a CWD tells it; to an open directory, or without one, only the inode does."""
    log = Log()
    for cwd, handle in (("/srv", ""), ("/srv", "3"), ("", "")):
        log.call(10, 1, CP, "content", 2, a0=handle or "ffffff9c")
        if cwd:
            log.add("CWD", f'cwd="{cwd}"')
        log.path("PARENT", 2, "dir/", mode="040755")
        log.path("CREATE", 20, "dir/x")
    assert [(one.path, one.above, one.name, one.relative) for one in read(log).events] == [
        ("/srv/dir/x", "2", "x", "r"),
        ("", "2", "x", "r"),
        ("", "2", "x", "r"),
    ]


def test_records_that_are_mixed_or_not_ours() -> None:
    """PATHs of two events one after the other; calls of other sessions; other devices; hosts that name themselves."""
    log, other = Log(), Log(8)
    log.make((10, 1, CP), 20, 2, "/etc/one")
    log.make((11, 1, MV), 21, 2, "/etc/two")
    mixed = [log.lines[place] for place in (0, 3, 1, 4, 5, 2)]
    other.serial = 300
    other.make((12, 1, CP), 22, 2, "/etc/not")
    log.lines = [*mixed, *other.lines]
    log.serial = 400
    log.call(10, 1, CP, "content", 1)
    log.path("NORMAL", 30, "/dev/shm/x", device="00:99")
    reader = Reader("7", {DEVICE})
    kept = reader.take([f"node=host {line}" for line in log.lines])
    assert sorted(one.path for one in reader.events) == ["/etc/one", "/etc/two"]
    assert [line for line in kept if "/etc/not" in line] == []
    assert len(kept) == 8


def test_personality_and_labels() -> None:
    """A program of another personality, and a file that has a security label, have a field more."""
    log = Log()
    log.call(10, 1, CP, "metadata", 1, person="per=40000 ")
    log.path("NORMAL", 20, "/etc/x")
    log.lines[-1] = log.lines[-1].replace("nametype", "obj=system_u:object_r:etc_t:s0 nametype")
    assert [told(one) for one in read(log).events] == [("N", "/etc/x", "m")]


def test_lines_that_are_cut_off() -> None:
    """As a full disk leaves them: no error, and nothing made up."""
    log = Log()
    log.make((10, 1, CP), 20, 2, "/etc/x")
    for line in list(log.lines):
        for end in range(0, len(line), 7):
            Reader("7", {DEVICE}).take([log.lines[0], line[:end], *log.lines[1:]])


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stage in which a session left its records: files made, linked, renamed away, opened and described."""
    monkeypatch.setattr(explaining, "_packages", lambda *_, **__: {"etc/one": "base-files"})
    made = tmp_path / "20250101-001_x"
    (made / "audit").mkdir(parents=True)
    (made / "state").mkdir()
    (made / "lists").mkdir()
    (made / "state/paths").write_text("/var/lib/thing\n")
    (made / "audit/session").write_text("7\n")
    (made / "audit/places").write_text(f"{DEVICE} /\n00:40 /var/lib/thing\n")
    (made / "audit/inodes").write_text(f"{DEVICE}\t2 d\tetc\n{DEVICE}\t20 f\tetc/one\n{DEVICE}\t21 f\tetc/two\n")
    log = Log()
    log.execute(10, 5, SH, "sh", "install.sh")
    log.make((10, 5, SH), 20, 2, "/etc/one")
    log.make((10, 5, SH), 21, 2, "/etc/dpkg-new")
    log.execute(11, 10, MV, "mv")
    log.call(11, 10, MV, "content", 4)
    log.path("PARENT", 2, "/etc/", mode="040755")
    log.path("PARENT", 2, "/etc/", mode="040755")
    log.path("DELETE", 21, "/etc/dpkg-new")
    log.path("CREATE", 21, "/etc/two")
    log.make((10, 5, SH), 30, 9, "/tmp/x")
    log.make((10, 5, SH), 31, 9, "/srv/gone")
    log.call(10, 5, SH, "metadata", 1)
    log.path("NORMAL", 32, "/etc/plain")
    log.call(10, 5, SH, "content", 1)
    log.path("NORMAL", 33, "/etc/same")
    log.make((10, 5, SH), 34, 8, "/var/lib/thing/x")
    log.lines[-1] = log.lines[-1].replace(DEVICE, "00:40")
    log.lines[-2] = log.lines[-2].replace(DEVICE, "00:40")
    (made / "audit/records").write_text("".join(f"{line}\n" for line in log.lines))
    return made


CHANGES = """\
A f 644 0 0 2 aa - etc/one
M f 600 0 0 2 aa - etc/plain
A f 644 0 0 2 aa - etc/two
M f 644 0 0 2 aa - etc/timed
A f 644 0 0 2 aa - etc/unseen
A f 644 0 0 2 aa - etc/linked == etc/one
"""


def test_who_did_it(stage: Path) -> None:
    """The last that changed it; what audit saw besides; what one of the two sources does not know."""
    (stage / "changes.list").write_text(CHANGES)
    (stage / "lists/times").write_text("etc/timed\n")
    (stage / "lists/unchanged").write_text("etc/same\n")
    # Not here: it makes itself nice.
    found = os.fork()
    if not found:
        explaining.from_lists(str(stage))
        os._exit(0)
    assert os.waitpid(found, 0)[1] == 0
    text = (stage / "audit/who").read_text()
    assert text.splitlines() == [
        f"process 1 0 10 {SH} sh install.sh",
        f"process 2 1 11 {MV} mv",
        "path 1 base-files etc/one",
        "path 1 - etc/plain",
        "path 2 - etc/two",
        "unexplained change times etc/timed",
        "unexplained change unknown etc/unseen",
        "unexplained change hard-link etc/linked",
        "also transient 2 etc/dpkg-new",
        "also unchanged 1 etc/same",
        "unexplained record made srv/gone",
        "also left-out 1 tmp/x",
        "also state 1 var/lib/thing/x",
    ]
    assert who.text(who.parse(text)) == text
    assert (stage / "audit/unexplained").read_text() == "4\n"
    records = (stage / "audit/records").read_text()
    assert subprocess.run(["zcat", stage / "audit.gz"], capture_output=True, text=True, check=True).stdout == records
    explaining.explain(str(stage), map(parse_change, CHANGES.splitlines()), {"etc/timed"}, {"etc/same"})
    assert (stage / "audit/who").read_text() == text


def events(*kinds: str) -> list[Done]:
    return [
        Done(number, "m" if kind == "m" else "w", 1, "N" if kind == "m" else kind, "k", "p", "")
        for number, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    ("kinds", "op"),
    [
        ("C", "A"), ("CD", None), ("D", "D"), ("DC", "C"), ("N", "C"), ("CN", "A"), ("m", "M"), ("mN", "C"),
        ("Nm", "C"), ("CDC", "A"), ("L", "A"), ("DmC", "C"),
    ],
)  # fmt: skip
def test_what_a_capture_says_of_a_path(kinds: str, op: str | None) -> None:
    assert touched(events(*kinds)).get("p") == op


def test_names_of_inodes(tmp_path: Path) -> None:
    """Each entry of an upper under the name that it has in the root, bytes that would break a line escaped."""
    upper, root = tmp_path / "upper", tmp_path / "root"
    for top in (upper, root):
        (top / "a dir").mkdir(parents=True)
        (top / "a dir/one\nline").touch()
        (top / os.fsdecode(b"by\xffte")).touch()
    (upper / "whiteout").touch()
    numbers = [path.stat().st_ino for path in (root, root / "a dir", root / "a dir/one\nline", root / "by\udcffte")]
    assert sorted(places.inodes(str(upper), str(root), "/var/lib/x y"), key=lambda line: line.split("\t")[2]) == [
        f"{places.device(str(root))}\t{number} {kind}\tvar/lib/x\\040y{path}"
        for number, kind, path in zip(
            numbers, "ddff", ("", "/a\\040dir", "/a\\040dir/one\\012line", "/byÿte"), strict=True
        )
    ]
    for name in ("a b\\\n", "by\udcffte", "ä"):
        assert places.unescape(places.escape(name)) == name


def test_packages_of_a_stack(tmp_path: Path) -> None:
    """The uppermost list counts, and one that was taken away does not."""

    def lists(level: str, **texts: str) -> str:
        folder = tmp_path / level / packages.INFO
        folder.mkdir(parents=True)
        for name, text in texts.items():
            (folder / f"{name}.list").write_text(text)
        return str(tmp_path / level)

    base = lists("base", one="/.\n/etc\n/etc/one\n/bin/x\n", gone="/etc/gone\n")
    layer = lists("layer", **{"two:amd64": "/etc/two\n/etc/a b\n"}, one="/etc/one\n/etc/more\n")
    (Path(layer) / packages.INFO / "gone.list").mkdir()
    top = lists("top", three="/etc/one\n")
    wanted = {"etc/one", "etc/two", "etc/more", "etc/gone", "usr/bin/x", "etc/a\\040b"}
    assert packages.in_stack([layer, base], top, wanted, merged=True) == {
        "etc/one": "three", "etc/two": "two", "etc/more": "one", "etc/a\\040b": "two",
    }  # fmt: skip
    assert packages.known([base], wanted, merged=True)["usr/bin/x"] == "one"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log that is rotated by `rotate`."""
    path = tmp_path / "audit.log"
    path.write_text("before\n")
    return path


def rotate(log: Path, keep: int = 5) -> None:
    for number in range(keep - 1, 0, -1):
        older = log.with_name(f"audit.log.{number}")
        if older.exists():
            older.rename(log.with_name(f"audit.log.{number + 1}"))
    log.rename(log.with_name("audit.log.1"))
    log.touch()


def everything(held: hold.Log) -> bytes:
    return b"".join(iter(held.read, b""))


def test_log_that_is_rotated_is_read_whole(log: Path) -> None:
    """From where it was when it began to be held, over files that are gone by now."""
    held = hold.Log(str(log))
    expected = ""
    for number in range(12):
        with log.open("a") as file:
            file.write(f"{number}\n")
        expected += f"{number}\n"
        rotate(log)
        held.look()
    with log.open("a") as file:
        file.write("last\n")
    assert everything(held).decode() == f"{expected}last\n"
    assert not held.gap
    held.close()


def test_log_that_is_rotated_away_unread(log: Path) -> None:
    """Files that came and went between two looks are a gap; several that are still there are none."""
    held = hold.Log(str(log))
    for _ in range(3):
        rotate(log)
    held.look()
    assert not held.gap
    for _ in range(7):
        rotate(log)
    held.look()
    assert held.gap
    held.close()


def free(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_holder_takes_over_what_it_needs_alone(log: Path, tmp_path: Path) -> None:
    """The lock of whoever began it is free when that one frees it; the daemon is in use until it is told to stop."""
    lock, used = ((tmp_path / name).open("w") for name in ("lock", "used"))
    for file in (lock, used):
        fcntl.flock(file, fcntl.LOCK_EX)
    holder = Holder(str(tmp_path), hold.Log(str(log)), used.fileno(), lock.fileno())
    for file in (lock, used):
        file.close()
    deadline = time.monotonic() + 20
    while not free(tmp_path / "lock"):
        # The child has only begun.
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not free(tmp_path / "used")
    holder.leave(entered=False)
    assert holder.await_taken()
    while not free(tmp_path / "used"):
        # It ends once it has let go of the log.
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_device_that_is_mounted_at_several_places(tmp_path: Path) -> None:
    """What is known by its number alone is looked for in each; the one that comes last gives it its name."""
    (tmp_path / "data/state/x").mkdir(parents=True)
    (tmp_path / "data/other").touch()
    (tmp_path / "data/state/x/file").touch()
    wanted = {DEVICE: {f"{(tmp_path / 'data' / name).stat().st_ino} f" for name in ("other", "state/x/file")}}
    of = [(DEVICE, "/data"), (DEVICE, "/data/state"), ("00:99", "/none")]
    found = [line.split("\t")[2] for line in places.by_number(wanted, of, str(tmp_path), but="/")]
    assert sorted(found[:2]) == ["data/other", "data/state/x/file"]
    assert found[2:] == ["data/state/x/file"]
