"""What the runner tells of a machine, on records made here: whole, small, and without reading what it knows."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.format.needs import NOT_BOOTED, PROGRAMS
from pyinfra_overlaymig.format.paths import MIGRATIONS
from pyinfra_overlaymig.format.status import UNKNOWN, Evidence, LockOwner, Status
from pyinfra_overlaymig.format.status_reader import parse
from pyinfra_overlaymig.migration.bundle import pack
from pyinfra_overlaymig.migration.folder import load
from pyinfra_overlaymig.runner import capabilities, files, metadata, migrations, store, summary
from pyinfra_overlaymig.runner.say import Leave
from pyinfra_overlaymig.runner.verbs import diff
from tests.sandbox import run_in_sandbox

TOP = Path(__file__).parent.parent
PROGRAM = f"{sys.executable} -I -S -B -X utf8 {TOP}/pyinfra_overlaymig/runner/__main__.py"
ADDED = "20240206-001_add_postgresql"


def record(generation: int, more: str = "") -> str:
    return (
        f"format 1\ndigest {generation:064x}\ngeneration {generation}\nbase a16d\nfiles 3\nsize 4096\n{more}"
        "audit on\nevents 12\nlost 0\nunexplained 1\n"
    )


class Machine:
    """What is on /data of a machine, made by hand; each migration is a layer more."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for name in ("migrations", "generations", "staging"):
            (top / name).mkdir(parents=True)

    def migrate(self, count: int) -> list[str]:
        ids = [f"20240101-{number:03d}_add_postgresql" for number in range(1, count + 1)]
        for number, id in enumerate(ids, 1):
            folder = self.top / "migrations" / id
            folder.mkdir()
            (folder / "record").write_text(record(number))
            (folder / "applied").write_text(f"at 2024-02-06T12:00:{number % 60:02}Z\ngeneration {number}\n")
            layers = "".join(f"layer {layer}\n" for layer in ids[:number])
            (self.top / "generations" / str(number)).write_text(f"format 1\nmade x\nbase a16d\n{layers}")
        (self.top / "generations/current").symlink_to(str(count))
        return ids

    def path(self, id: str, name: str = "record") -> Path:
        return self.top / "migrations" / id / name


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The runner's modules look at this one."""
    for module in (metadata, migrations, store, diff):
        for name in ("MIGRATIONS", "GENERATIONS", "METADATA", "CAPTURES"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(paths, name).replace(paths.SYSTEM, str(tmp_path)))
    monkeypatch.setattr(store, "_CURRENT", f"{tmp_path}/generations/current")
    monkeypatch.setattr(store, "_generations", {})
    return Machine(tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which files were read."""
    found: list[str] = []
    read = files.read

    def noted(path: str) -> str:
        found.append("/".join(Path(path).parts[-2:]))
        return read(path)

    monkeypatch.setattr(files, "read", noted)
    return found


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that was changed was changed long ago."""
    monkeypatch.setattr(time, "time_ns", lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) + 10**10)


def test_no_record_is_read_that_did_not_change(
    machine: Machine, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 migrations the index alone is read, and the one that changed; what is told stays the same."""
    settled(monkeypatch)
    ids = machine.migrate(60)
    before = metadata.read()
    metadata.write()
    store._generations.clear()
    reads.clear()
    assert metadata.read() == before
    assert sorted(reads) == ["generations/60", "migrations/metadata.json"]
    with machine.path(ids[7]).open("a") as file:
        file.write("service web\n")
    reads.clear()
    changed = metadata.read()
    assert sorted(reads) == [
        *(f"{ids[7]}/{name}" for name in ("applied", "manifest", "record")),
        "migrations/metadata.json",
    ]
    assert changed.migrations[7]["services"] == ["web"]
    assert changed.generations == before.generations


def test_what_changed_without_the_index_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark that came or went, a record in another's place, one that is gone, one that is new: folders count."""
    settled(monkeypatch)
    ids = machine.migrate(5)
    machine.path(ids[0], "applied").unlink()
    metadata.write()
    machine.path(ids[0], "applied").write_text("at later\ngeneration 1\n")
    machine.path(ids[1], "applied").unlink()
    machine.path(ids[2], "record.new").write_text(record(3).replace("size 4096", "size 4097"))
    machine.path(ids[2], "record.new").rename(machine.path(ids[2]))
    machine.path(ids[3]).unlink()
    (machine.top / "migrations/20250101-001_new").mkdir()
    machine.path("20250101-001_new").write_text(record(9))
    (machine.top / "generations/6").write_text("format 1\nmade x\nbase b\ninstead-of 5\n")
    found = metadata.read()
    assert [(one["id"], one["status"], one["size"], one["active"]) for one in found.migrations] == [
        (ids[0], "applied", 4096, True),
        (ids[1], "committed", 4096, True),
        (ids[2], "applied", 4097, True),
        (ids[4], "applied", 4096, True),
        ("20250101-001_new", "committed", 4096, False),
    ]
    assert found.migrations[0]["applied_at"] == "later"
    assert (found.generations[-1].n, found.generations[-1].stack, found.generations[-1].instead_of) == (6, (), 5)


def test_rolled_back_migrations_are_told_still(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are there and not active, also where their records are not read again."""
    settled(monkeypatch)
    machine.migrate(3)
    metadata.write()
    (machine.top / "generations/current").unlink()
    (machine.top / "generations/current").symlink_to("1")
    assert [one["active"] for one in metadata.read().migrations] == [True, False, False]


def test_what_has_just_changed_is_not_trusted(machine: Machine, reads: list[str]) -> None:
    """A change within the same tick of the clock would have the same time."""
    ids = machine.migrate(2)
    metadata.write()
    reads.clear()
    metadata.read()
    assert f"{ids[0]}/record" in reads


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format":1,"migrations":[]}', '{"migrations":[{"id":"x"}],"generations":[],"seen":{}}'],
)
def test_an_index_that_says_less_is_no_index(machine: Machine, text: str) -> None:
    """That of an older runner, or one that is damaged: all is read from the folders."""
    machine.migrate(2)
    (machine.top / "migrations/metadata.json").write_text(text)
    assert len(metadata.read().migrations) == len(metadata.read().generations) == 2


def test_a_record_that_cannot_be_read_is_no_missing_one(machine: Machine) -> None:
    """Its migration is told of, as one to be looked at."""
    ids = machine.migrate(2)
    machine.path(ids[1]).write_text("format 7\n")
    assert [one["status"] for one in metadata.read().migrations] == ["applied", "unreadable"]


def status_in_sandbox(script: str, tmp_path: Path) -> list[Status]:
    """What `status` says each time that the script calls it."""
    program = f"status() {{ {PROGRAM} status; }}\n"
    done = run_in_sandbox(program + textwrap.dedent(script), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [parse(line) for line in done.stdout.splitlines()]


def test_a_bare_machine_is_told(tmp_path: Path) -> None:
    """Nothing was laid out: the base alone, and no trouble."""
    (status,) = status_in_sandbox("status", tmp_path)
    assert (status.known, status.generation, status.stack, status.migrations) == (True, 0, (), ())
    assert status.lock is None
    assert status.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_services_evidence_and_lock_are_told(tmp_path: Path) -> None:
    """What is supervised and what should be, what failed, and who is at work."""
    before, after = status_in_sandbox(
        rf"""
        mkdir -p /data/system/migrations/{ADDED} /data/system/generations /data/system/staging/20240301-001_c
        cd /data/system
        printf 'format 1\nmade x\nbase b\nlayer {ADDED}\n' >generations/1; ln -s 1 generations/current
        cd migrations/{ADDED}
        printf 'format 1\ndigest bb\ngeneration 1\nstate /srv/a\\040b\nservice web\nservice ok\n' >record
        cd /data/system
        printf 'failed_at 2026-11-23T15:00:00Z\nexit timeout\n' >staging/20240301-001_c/failed
        printf 'generation 1\nfailed 2\n' >boots
        for name in ok slow down; do
            mkdir -p /run/service/$name
            printf '#!/bin/sh\nexec sleep 1000\n' >/run/service/$name/run; chmod +x /run/service/$name/run
        done
        echo 3 >/run/service/slow/notification-fd
        touch /run/service/down/down; echo 'died "thrice"' >/run/service/down/reason
        s6-svscan /run/service >/dev/null 2>&1 &
        cd /run/service
        until [ -p down/supervise/control ] && s6-svstat -o up ok | grep -q true; do sleep 0.05; done
        until s6-svstat -o up slow | grep -q true; do sleep 0.05; done
        cd /data/system
        status
        mkdir lock
        printf 'who anna@desk\nfrom 192.0.2.1\npid 12\nboot_id 0d3c\nsince now\nverb apply\nid x\n' >lock/owner
        exec 8>lock/flock; flock 8
        status
        """,
        tmp_path,
    )
    assert (before.failed_boots, before.stack, before.lock) == (2, (ADDED,), None)
    assert before.migrations[0].state == ("/srv/a b",)
    assert before.evidence == (Evidence("20240301-001_c", "2026-11-23T15:00:00Z", "timeout"),)
    services = {one.name: (one.up, one.ready, one.wanted_up, one.reason) for one in before.services}
    assert services == {
        "ok": (True, True, True, ""),
        "slow": (True, False, True, ""),
        "down": (False, False, False, "died thrice"),
        "web": (False, False, True, ""),
    }
    ok = before.service("ok")
    assert ok is not None
    assert ok.since is not None
    assert abs(ok.since - time.time()) < 120
    assert after.lock == LockOwner("anna@desk", "192.0.2.1", 12, "0d3c", "now", "apply", "x")


def test_a_machine_with_400_layers_says_all_of_it_in_little(tmp_path: Path) -> None:
    """Each generation's stack and each migration is known from less than 100 kB; the index has no stack twice."""
    made = Machine(tmp_path / "shared/system")
    ids = made.migrate(400)
    done = run_in_sandbox(
        f"""
        cp -a /sandbox/system /data/
        {PROGRAM} status | tee /sandbox/small | wc -c
        {sys.executable} -c 'import sys; sys.path.insert(0, "{TOP}")
from pyinfra_overlaymig.runner import metadata; metadata.write()'
        {PROGRAM} status | cmp - /sandbox/small
        wc -c </data/system/migrations/metadata.json
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    small, index = map(int, done.stdout.split())
    assert small < 100_000
    assert index < 250_000
    status = parse((tmp_path / "shared/small").read_text())
    assert [one.stack for one in status.generations] == [tuple(ids[:n]) for n in range(1, 401)]
    assert [one.id for one in status.migrations] == ids == list(status.stack)


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    """To who may not look, a machine is not one without migrations; status prints, and exits 0."""
    done = run_in_sandbox(
        f"mkdir -p /data/system/generations; chmod 700 /data/system; ln -s 3 /data/system/generations/current\n"
        f"setpriv --reuid 65534 --regid 65534 --clear-groups {PROGRAM} status",
        tmp_path,
    )
    if "No such file" in done.stderr or done.returncode == 127:
        pytest.skip("this checkout's Python is not everybody's to run")
    assert done.returncode == 0
    assert parse(done.stdout) == UNKNOWN
    assert "Permission denied" in done.stderr


def test_machine_that_the_runner_has_not_booted_is_no_machine_for_migrations(tmp_path: Path) -> None:
    """What they change would be gone with its next restart: `check` and `apply` refuse it, `status` says why."""
    folder = tmp_path / "20250101-001_x"
    folder.mkdir()
    (folder / "migration.yaml").write_text("description: x\n")
    (folder / "install.sh").write_text("#!/bin/sh\nset -eu\n")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/bundle").write_bytes(pack(load(folder)))
    done = run_in_sandbox(
        f"""
        {PROGRAM} check || echo "exit $?"
        {PROGRAM} apply /sandbox/bundle || echo "exit $?"
        {PROGRAM} status
        """,
        tmp_path,
    )
    check, apply, status = done.stdout.splitlines()
    assert (check, apply) == ("exit 3", "exit 3")
    assert done.stderr.count("has not booted this machine") == 2
    assert parse(status).unfit == NOT_BOOTED


def test_check_names_what_the_base_lacks(tmp_path: Path) -> None:
    """By program and package."""
    done = run_in_sandbox(f'rm -f "$(command -v s6-log)"\n{PROGRAM} check || echo "exit $?"', tmp_path)
    assert done.stdout == "exit 3\n"
    assert "lacks: s6-log (package s6)\n" in done.stderr
    assert "install s6 in the base image" in done.stderr


def test_what_a_running_generation_hides_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What apt installs gets into a layer's upper: only another image gives the base what it lacks."""
    monkeypatch.setattr(capabilities, "booted", lambda: True)
    assert capabilities.hint(["s6-log (package s6)"]).startswith("rebuild the image with s6")
    monkeypatch.setattr(capabilities, "booted", lambda: False)
    assert capabilities.hint(["s6-log (package s6)"]) == "install s6 in the base image"
    assert capabilities.hint(["overlayfs in the kernel"]) == "run the machine on a kernel that has it"


def test_what_is_missing_is_looked_for_in_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root without anything lacks all programs, whatever this one has."""
    monkeypatch.setattr(capabilities, "root", lambda: str(tmp_path))
    assert [str(need) for need in PROGRAMS] == capabilities.missing()[: len(PROGRAMS)]


CHANGES = """\
C d 0755 0 0 0 - - etc/app
A f 0644 0 0 1500 aa - etc/app/one
A f 0644 0 0 2500000 aa - usr/share/doc/deep/down/x
D - - - - - - - var/gone
"""
WHO = """\
process 1 0 10 /usr/bin/python3.11 system-migrate apply 20240101-001_x
process 2 1 11 /bin/sh sh /stage/install.sh
process 3 2 12 /usr/bin/dpkg dpkg -i x
process 4 3 13 /usr/bin/perl perl -w /usr/sbin/tool
process 5 1 14 /usr/bin/tar tar -x
path 4 app etc/app
path 4 app etc/app/one
path 5 - var/gone
also transient 3 tmp/y
unexplained change times usr/share/doc/deep/down/x
"""
SHOWN = """\
20240101-001_x: 4 changes, 2.5 MB
audit: on, 12 events, 0 lost, 1 unexplained

(no package): 2 changes, 2.5 MB
    A1                2.5 MB  /usr/share/doc/deep
    D1                   0 B  /var  tar < system-migrate

app: 2 changes, 1.5 kB
    C1                   0 B  /etc  tool < dpkg < install.sh
    A1                1.5 kB  /etc/app  tool < dpkg < install.sh

also seen:
    transient      1  /tmp  dpkg < install.sh

unexplained:
    change: times: /usr/share/doc/deep/down/x

A added, C changed, M metadata, D deleted
"""


def test_changes_are_shown_by_package_and_directory(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """With who made them, from the program up to the install script, or to the runner itself."""
    id = "20240101-001_x"
    machine.path(id).parent.mkdir()
    for name, text in (("record", record(1)), ("changes.list", CHANGES), ("who.list", WHO)):
        machine.path(id, name).write_text(text)
    assert diff.main([id]) == 0
    assert capfd.readouterr().out == SHOWN
    assert diff.main(["--raw", id]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("change ")] == [f"change {line}" for line in CHANGES.splitlines()]
    assert [line for line in lines if line.startswith("record ")] == [
        f"record {line}" for line in record(1).splitlines()
    ]
    assert lines[-1] == "end"


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 100), (["a", "b"], 100), (["../x"], 4), (["20240101-009_none"], 4)]
)
def test_diff_of_nothing_is_refused(machine: Machine, arguments: list[str], code: int) -> None:
    """A path is no id, and an id without a record is named."""
    assert machine.top.is_dir()
    with pytest.raises(Leave) as caught:
        diff.main(arguments)
    assert caught.value.code == code


def test_very_many_changes_are_shown_in_time() -> None:
    """100,000 of them, each with its process."""
    changes = "".join(f"A f 0644 0 0 10 aa - usr/lib/d{n % 997}/f{n}\n" for n in range(100_000))
    who = "process 1 0 10 /usr/bin/dpkg dpkg\n" + "".join(f"path 1 p usr/lib/d{n % 997}/f{n}\n" for n in range(100_000))
    began = time.process_time()
    text = summary.text("x", "", changes, who)
    assert time.process_time() - began < 3
    assert text.count("\n") == 997 + 6


def test_into_a_closed_pipe_is_no_trouble(tmp_path: Path) -> None:
    """`status | head -c 1` says nothing of a failure, whatever the verb and however long its answer; 0 or 141."""
    records = f"{MIGRATIONS}/20240101-001_x"
    done = run_in_sandbox(
        f"""
        {PROGRAM} status | head -c 1 >/dev/null
        mkdir -p {records}
        echo 'audit off' >{records}/record
        seq -f 'A f 0644 0 0 10 aa - usr/lib/d%g/f' 20000 >{records}/changes.list
        for verb in status drift --help 'diff 20240101-001_x' 'diff --raw 20240101-001_x'; do
            {{ {PROGRAM} $verb; echo "$verb: $?" >&3; }} | head -c 1 >/dev/null
        done 3>&1
        """,
        tmp_path,
    )
    said = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(said)) == (0, "", 5), said
    assert {line.rpartition(" ")[2] for line in said} <= {"0", "141"}, said


def test_an_answer_that_finds_no_room_is_none() -> None:
    """Part of it would be taken for all; a program that has seen enough is another thing."""
    words = ("/bin/sh", "-c", f"{PROGRAM} version >/dev/full; echo $?; ({PROGRAM} --help; echo $? >&2) | true")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "111\n"
    assert done.stderr.splitlines()[0] == "system-migrate: the answer could not be written: No space left on device"
    assert done.stderr.splitlines()[-1] in ("0", "141")
