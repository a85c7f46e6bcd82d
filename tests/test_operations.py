from __future__ import annotations

import inspect
import io
import json
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import (
    Config,
    FunctionCommand,
    Inventory,
    OperationError,
    State,
    StringCommand,
    operation,
)
from pyinfra.api.connect import connect_all
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.connectors.util import write_stdin
from pyinfra.context import ctx_host, ctx_state
from pyinfra_testing.util import create_host

from pyinfra_overlaymig import operations
from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.format.needs import NOT_BOOTED
from pyinfra_overlaymig.format.status import UNKNOWN, Generation, LockOwner, MigrationRecord, Runner, Status
from pyinfra_overlaymig.format.status_reader import parse
from pyinfra_overlaymig.migration.bundle import pack
from pyinfra_overlaymig.migration.folder import load
from pyinfra_overlaymig.migration.packing import Count, Packets
from pyinfra_overlaymig.migration.runner import runner_digest
from pyinfra_overlaymig.operations import (
    _arguments,
    _upload,
    generation_active,
    machine_prepared,
    migration_applied,
    migrations_in,
    s6_service,
)
from pyinfra_overlaymig.operations._folder import _all, _one
from tests.pyinfra_run import run
from tests.sandbox import run_in_sandbox

TOP = Path(__file__).parent.parent
ID = "20240206-001_demo"
BARE = Status(known=True)
READY = Status(known=True, runner=Runner("0.1.0", runner_digest()))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the one migration ``ID``."""
    top = tmp_path / "migrations"
    make_migration(top, ID)
    _all.cache_clear()
    _one.cache_clear()
    yield top
    _all.cache_clear()
    _one.cache_clear()


def make_migration(top: Path, id: str, manifest: str = "description: demo\n") -> None:
    (top / id).mkdir(parents=True)
    (top / id / "migration.yaml").write_text(manifest)
    (top / id / "install.sh").write_text("#!/bin/sh\necho installing\n")


def record(path: Path, **changes: Any) -> MigrationRecord:
    """What a machine reports of the migration in ``path`` that it has applied."""
    applied = MigrationRecord(
        path.name, load(path).digest, "applied", "2026-11-23T14:00:00Z", 2,
        active=True, state=(), services=(), size=1, files=1,
    )  # fmt: skip
    return replace(applied, **changes)


def commands_of(
    operation: Any, status: Status, *, executing: bool = False, **arguments: Any
) -> tuple[list[StringCommand], Any]:
    """The commands that an operation yields on a machine of that status, and the host."""
    state = run(executing=executing)
    host = create_host(state, facts={"status.MachineStatus": status})
    host.log = lambda _line, **_: None
    with ctx_state.use(state), ctx_host.use(host):
        return list(operation._inner(**arguments)), host


def run_failing(command: StringCommand) -> str:
    """What a command says that a real shell runs and that has to fail with exit 1."""
    result = subprocess.run(["sh", "-c", command.get_raw_value()], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert not result.stdout
    return result.stderr


class Fleet:
    """Hosts of pyinfra's own `@fake` connector, whose status can be changed between stages."""

    def __init__(self, **statuses: Status) -> None:
        data = {"fake_delay": 0, "fake_delay_jitter": 0}
        hosts = [(f"@fake/{name}", data) for name in statuses]
        self.state: Any = State(Inventory((hosts, {})), Config())
        for name, status in statuses.items():
            self.connector(name).data["fake_responses"] = {}
            self.answer(name, status)
        connect_all(self.state)

    def host(self, name: str) -> Any:
        return self.state.inventory.get_host(f"@fake/{name}")

    def connector(self, name: str) -> Any:
        return self.host(name).connector

    def responses(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.connector(name).data["fake_responses"]
        return found

    def answer(self, name: str, status: Status) -> None:
        """What the machine reports from now on."""
        failed = {"success": False, "stderr": "no route to host"}
        text = json.dumps(status.to_json())
        self.responses(name)["system-migrate status"] = text if status.known else failed

    def prepare(self, operation: Any, **arguments: Any) -> None:
        add_op(self.state, operation, **arguments)

    def execute(self) -> None:
        run_ops(self.state)

    def commands(self, name: str) -> list[str]:
        """What ran there: `status` for the fact, else the last words of a command."""
        lines: list[str] = self.connector(name).executed_commands
        return ["status" if "system-migrate status" in one else one for one in lines]

    def failed(self) -> set[str]:
        return {host.name.removeprefix("@fake/") for host in self.state.failed_hosts}


def test_a_prepared_machine_needs_nothing() -> None:
    """The runner is not uploaded where its digest is ours already."""
    commands, host = commands_of(machine_prepared, READY)
    assert commands == []
    assert "nothing is missing" in host.noop_description


@pytest.mark.parametrize("wanted", [machine_prepared, migration_applied, generation_active])
def test_an_unknown_machine_is_not_touched(wanted: Any, folder: Path) -> None:
    """A host that could not be asked fails with the reason, alone, and is never taken for empty."""
    arguments: dict[Any, dict[str, Any]] = {
        machine_prepared: {},
        migration_applied: {"migration": ID, "folder": folder},
        generation_active: {"generation": 0},
    }
    (command,), _ = commands_of(wanted, UNKNOWN, executing=True, **arguments[wanted])
    assert "is unknown" in run_failing(command)


def test_missing_commands_are_refused_where_packages_are_not_wanted() -> None:
    """Without `packages`, a machine that lacks something is told what, and left as it is."""
    lacking = replace(READY, missing=("setfattr (package attr)",))
    (command,), _ = commands_of(machine_prepared, lacking, packages=False)
    assert "setfattr (package attr)" in run_failing(command)


def test_an_applied_migration_is_a_noop(folder: Path) -> None:
    """The same digest in the stack means that there is nothing to do, and says so."""
    status = replace(READY, migrations=(record(folder / ID),))
    commands, host = commands_of(migration_applied, status, migration=ID, folder=folder)
    assert commands == []
    assert host.noop_description == f"{ID} is applied (generation 2)"


@pytest.mark.parametrize("change", [{"active": False}, {"status": "committed"}, {"active": False, "digest": "other"}])
def test_anything_short_of_applied_goes_to_the_runner(folder: Path, change: Any) -> None:
    """Interrupted, or not in the stack: the machine decides, under its lock."""
    fleet = Fleet(one=replace(READY, migrations=(record(folder / ID, **change),)))
    fleet.prepare(migration_applied, migration=ID, folder=folder)
    fleet.execute()
    assert [line for line in fleet.commands("one") if line.endswith("apply --confirm 60 -")]


def test_a_migration_is_one_command_with_the_bundle_as_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole transaction is one round trip, which says who asked for it."""
    monkeypatch.setenv("LOGNAME", "it's me")
    fleet = Fleet(one=READY)
    with ctx_state.use(fleet.state), ctx_host.use(fleet.host("one")):
        (command,) = migration_applied._inner(migration=folder / ID)
    assert b"".join(one.encode() for one in command.connector_arguments["_stdin"]) == pack(load(folder / ID))
    script = command.get_raw_value().replace(
        "/data/system/runner/system-migrate apply --confirm 60 -", "sh -c 'cat >/dev/null; echo $OVERLAYMIG_WHO'"
    )
    found = subprocess.run(["sh", "-c", script], input="", capture_output=True, text=True, check=True)
    assert found.stdout.startswith("it's me@")


def test_what_is_sent_arrives_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes, through pyinfra, which sends texts; and where it takes long it says how far it is."""
    monkeypatch.setattr(_upload, "_EVERY", 0.0)
    data = bytes(range(256)) * 1000 + b"no newline at its end"
    count = Count(len(data))
    packets = Packets(count.of([data[:100_000], data[100_000:]]), count)
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert _received(_upload.Upload(Fleet(one=READY).host("one"), "it", packets)) == data
    assert "it: 0.1 MB of 0.3 MB sent" in caplog.text
    assert "it: all of 0.3 MB sent in 0 s" in caplog.text


def test_what_cannot_be_packed_to_its_end_is_no_exception(caplog: pytest.LogCaptureFixture) -> None:
    """It would end the run for all hosts: each says why, and sends what its machine will refuse."""

    def source() -> Iterator[bytes]:
        yield bytes(100_000)
        raise InvalidMigration("changed while it was being packed", hint="run it again", file=Path("x"))

    packets = Packets(source())
    for _ in range(2):
        assert len(_received(_upload.Upload(Fleet(one=READY).host("one"), "it", packets))) < 100_000
    assert caplog.text.count("x: changed while it was being packed") == 2


def _received(sent: list[str]) -> bytes:
    received = io.BytesIO()
    received.close = lambda: None  # type: ignore[method-assign]
    write_stdin(sent, received)
    return received.getvalue()


def test_what_would_happen_is_said_before_anything_is_done(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the prepare stage a host shows scripts, services, files and state, once, and changes nothing."""
    manifest = (
        "description: demo\nstate: [/var/lib/demo]\nservices: {demo: {run: sleep 1, user: nobody, check: ping}}\n"
    )
    (folder / ID / "migration.yaml").write_text(manifest)
    (folder / ID / "verify.sh").write_text("#!/bin/sh\necho verifying\n")
    (folder / ID / "files/etc").mkdir(parents=True)
    (folder / ID / "files/etc/demo.conf").write_text("twelve bytes")
    (folder / ID / "files/etc/link").symlink_to("demo.conf")
    fleet = Fleet(one=READY)
    with caplog.at_level("INFO"):
        fleet.prepare(migration_applied, migration=ID, folder=folder)
        said = caplog.text
        assert [line for line in fleet.commands("one") if "apply" in line] == []
        fleet.execute()
    for part in (
        f"{ID}: demo", "brings up the service demo", "    run: sleep 1", "    user: nobody", "    check: ping",
        "state: /var/lib/demo", "0644       12 /etc/demo.conf", "/etc/link -> demo.conf",
        "    echo installing", "    echo verifying",
    ):  # fmt: skip
        assert part in said
        assert caplog.text.count(part) == 1
    assert "will be refused" not in said


def test_what_a_terminal_would_obey_is_shown_as_text(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of scripts, of what services run, and of names; text of any language stays."""
    (folder / ID / "install.sh").write_text("#!/bin/sh\nset -eu\nprintf '\033[2J\u202eh\u00e9llo\u009b'\techo \u65e5\n")
    manifest = 'description: demo\nservices: {demo: {run: "echo \\e[31m; exec sleep 1"}}\n'
    (folder / ID / "migration.yaml").write_text(manifest)
    with caplog.at_level("INFO"):
        Fleet(one=READY).prepare(migration_applied, migration=ID, folder=folder)
    assert "printf '?[2J?h\u00e9llo?'\techo \u65e5" in caplog.text
    assert "run: echo ?[31m; exec sleep 1" in caplog.text


def test_the_plan_is_shown_once_for_all_hosts(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of many machines one shows the plan, the others say that theirs is the same."""
    fleet = Fleet(one=READY, two=READY, three=READY)
    with caplog.at_level("INFO"):
        fleet.prepare(migration_applied, migration=ID, folder=folder)
    assert caplog.text.count("echo installing") == 1
    assert caplog.text.count(f"{ID}: the same plan as @fake/") == 2
    assert caplog.text.count("warning: install.sh goes on after a command that fails") == 1


def test_refusals_are_foretold(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the status shows to be refused is said before, with the reason: order, dependency, conflict, lock."""
    one, two, three = "20240207-001_one", "20240207-002_two", "20240207-003_three"
    make_migration(folder, one)
    make_migration(folder, two, f"description: x\ndepends: [{one}]\n")
    make_migration(folder, three, f"description: x\nconflicts: [{ID}]\n")
    newer = record(folder / one, id="20250101-001_newer")
    local = record(folder / one, id="20260101-001_install_htop", local=True)
    strict = folder.with_name("strict")
    make_migration(strict, ID)
    (strict / "migrations.yaml").write_text("strict_order: true\n")
    holder = LockOwner("anna@desk", "192.0.2.1", 7, "x", "2026-11-23T14:00:00Z", "apply", one)
    cases = (
        (replace(READY, migrations=(newer,)), strict / ID, "out of order: 20250101-001_newer is applied already"),
        (replace(READY, migrations=(local,)), strict / ID, None),
        (replace(READY, migrations=(newer,)), ID, None),
        (READY, two, f"{two} depends on {one}, which is not applied here"),
        (replace(READY, migrations=(record(folder / ID),)), three, f"{three} conflicts with {ID}"),
        (
            replace(READY, migrations=(replace(newer, conflicts=(ID,)),)),
            ID,
            f"20250101-001_newer, which is applied here, conflicts with {ID}",
        ),
        (replace(READY, missing=("s6-svc (package s6)",)), ID, "this machine lacks: s6-svc (package s6)"),
        (BARE, ID, "@fake/one has no runner"),
        (replace(READY, lock=holder), ID, "anna@desk from 192.0.2.1 holds the lock since 2026-11-23T14:00:00Z"),
    )
    for status, id, reason in cases:
        caplog.clear()
        with caplog.at_level("INFO"):
            Fleet(one=status).prepare(migration_applied, migration=folder / id)
        assert ("will be refused" in caplog.text) is bool(reason)
        assert (reason or "") in caplog.text


def test_what_this_run_brings_before_counts(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A dependency that an earlier operation of the run applies is not missing; an id before it goes on top."""
    later = "20240207-001_later"
    make_migration(folder, later, f"description: x\ndepends: [{ID}]\n")
    with caplog.at_level("INFO"):
        fleet = Fleet(one=BARE)
        fleet.prepare(machine_prepared)
        fleet.prepare(migration_applied, migration=folder / ID)
        fleet.prepare(migration_applied, migration=folder / later)
        assert "will be refused" not in caplog.text
        make_migration(folder, "20240206-002_between")
        fleet.prepare(migration_applied, migration=folder / "20240206-002_between")
        assert "will be refused" not in caplog.text
    assert f"it goes on top of {later}, although it is older: that one is applied before it by this run" in caplog.text


def test_a_fresh_machine_is_prepared_first(folder: Path) -> None:
    """What it has is known once it has a runner: neither its services nor its lack of a runner are foreseen before."""
    make_migration(folder, "20240207-001_stops", "description: x\nstop: [sshd]\n")
    fleet = Fleet(one=BARE)
    fleet.prepare(machine_prepared)
    fleet.prepare(generation_active, generation=0)
    fleet.prepare(migration_applied, migration=folder / "20240207-001_stops")
    assert fleet.failed() == set()
    fleet.prepare(generation_active, generation=2)
    assert fleet.failed() == {"one"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"broken": (1,)}, "generation 1 is not whole any more"),
        ({"lock": LockOwner("anna@desk", "desk", 7, "x", "now", "apply", "y")}, "anna@desk from desk holds the lock"),
        ({"generations": ()}, "there is no generation 1"),
        ({"runner": None}, "@fake/one has no runner"),
    ],
)
def test_going_to_a_generation_is_foreseen(change: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    """Refused, where the machine would; the same machine without that is not."""
    able = replace(READY, generations=(Generation(1, ("20240101-001_a",)),))
    for status, foreseen in ((able, False), (replace(able, **change), True)):
        fleet = Fleet(one=status)
        fleet.prepare(generation_active, generation=1)
        assert fleet.failed() == ({"one"} if foreseen else set())
    assert f"will be refused: {why}" in caplog.text


def test_what_goes_back_in_this_run_is_not_there_any_more(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rolled back, edited and applied in one run; and gone to is what the run itself makes."""
    edited = record(folder / ID, digest="other")
    status = replace(
        READY, generation=2, running=2, stack=("20240101-001_a", ID), migrations=(edited,),
        generations=(Generation(1, ("20240101-001_a",)), Generation(2, ("20240101-001_a", ID))),
    )  # fmt: skip
    fleet = Fleet(one=status)
    with caplog.at_level("INFO"):
        fleet.prepare(generation_active, generation=1)
        # A second time it is there.
        fleet.prepare(migration_applied, migration=folder / ID)
        fleet.prepare(migration_applied, migration=folder / ID)
        assert "rolled back, and edited since: it is applied anew" in caplog.text
        fleet.prepare(generation_active, generation=0)
        fleet.prepare(generation_active, generation=ID)
        fleet.prepare(generation_active, generation=4)
        fleet.prepare(generation_active, generation=3)
    assert f"generation 5 (the base alone) -> 20240101-001_a, {ID}" in caplog.text
    assert f"(20240101-001_a, {ID}) -> 20240101-001_a\n" in caplog.text
    assert fleet.failed() == set()
    fleet.prepare(generation_active, generation=8)
    assert fleet.failed() == {"one"}


def test_what_machine_and_folder_disagree_about_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rails' NO FILE: what is applied and has no folder any more, once; and what is applied under another name."""
    here, renamed = (
        record(folder / ID),
        record(folder / ID, id="20240206-001_before", content=load(folder / ID).content),
    )
    gone = record(folder / ID, id="20240101-001_gone")
    local = record(folder / ID, id="20240101-002_made_by_hand", local=True)
    back = record(folder / ID, id="20240101-003_went_back", active=False)
    make_migration(folder, "20240207-001_other", "description: x\ndepends: []\nstate: [/srv/x]\n")
    fleet = Fleet(one=replace(READY, migrations=(gone, local, back, here)), two=replace(READY, migrations=(renamed,)))
    with caplog.at_level("INFO"):
        for id in (ID, "20240207-001_other"):
            fleet.prepare(migration_applied, migration=id, folder=folder)
        fleet.execute()
    assert caplog.text.count(f"[@fake/one] applied here, and not in {folder}: {gone.id}\n") == 1
    assert caplog.text.count(f"[@fake/two] applied here, and not in {folder}: {renamed.id}\n") == 1
    assert caplog.text.count("is word for word what") == 1
    assert "[@fake/two]   it is word for word what 20240206-001_before is" in caplog.text
    assert "will be refused" not in caplog.text


def rolled_back(folder: Path, ids: list[str], stack: list[str], **edited: Any) -> Status:
    """A machine that had ``ids``, one after the other, and went back to ``stack``."""
    stacks = [*(ids[:n] for n in range(1, len(ids) + 1)), stack]
    return replace(
        READY,
        stack=tuple(stack),
        generations=tuple(Generation(n, tuple(one)) for n, one in enumerate(stacks, 1)),
        migrations=tuple(record(folder / id, active=id in stack, **edited.get(id, {})) for id in ids),
    )


def test_what_was_rolled_back_is_foretold(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A layer is used again; edited, or over another stack, its migration is applied anew, and what goes is named."""
    ids = [ID, "20240207-001_two", "20240208-001_three"]
    for id in ids[1:]:
        make_migration(folder, id)
    back = rolled_back(folder, ids, ids[:1])
    edited = rolled_back(folder, ids, ids[:1], **{ids[1]: {"digest": "other"}})
    fleet = Fleet(back=back, edit=edited, over=rolled_back(folder, ids, []))
    fleet.responses("edit")["base64 -w 0 manifest"] = ["Zm9ybWF0IDEK", "IyEvYmluL3NoCmVjaG8gZWFybGllcgo="]
    with caplog.at_level("INFO"):
        for id in ids[1:]:
            fleet.prepare(migration_applied, migration=id, folder=folder)
    said = {name: [one.partition("] ")[2] for one in caplog.text.splitlines() if f"@fake/{name}]" in one]
            for name in ("back", "edit", "over")}  # fmt: skip
    used = "was applied before and rolled back: its layer is used again, no script runs"
    assert said["back"] == [f"{id}: {used}" for id in ids[1:]]
    anew = f"{ids[1]}: was applied before and rolled back, and"
    goes = ["  once that is done, its old layer goes for good, and generation 2, 3",
            f"  with it goes what was applied over it: {ids[2]}"]  # fmt: skip
    assert said["edit"][:3] == [f"{anew} edited since: it is applied anew", *goes]
    assert "    +echo installing" in said["edit"]
    assert said["over"][:3] == [f"{anew} another stack is below it now: it is applied anew", *goes]
    # The layer of the third goes with that of the second: it is applied as if it never had been.
    assert not [line for line in said["edit"][3:] + said["over"][3:] if line.startswith(f"{ids[2]}: was")]
    assert "will be refused" not in caplog.text


def test_an_edited_migration_shows_the_diff(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was applied is compared with the folder, in plain words, once; the machine is not asked to refuse it."""
    (folder / ID / "migration.yaml").write_text("description: x\nstate: [/srv/a b]\n")
    (folder / ID / "verify.sh").write_text("#!/bin/sh\ntrue\n")
    fleet = Fleet(one=replace(READY, migrations=(record(folder / ID, digest="other"),)))
    fleet.responses("one")["base64 -w 0 manifest"] = [
        "Zm9ybWF0IDEK",
        "IyEvYmluL3NoCmVjaG8gZWFybGllcgo=",
    ]
    with caplog.at_level("INFO"):
        fleet.prepare(migration_applied, migration=ID, folder=folder)
        fleet.execute()
    for part in ("-echo earlier", "+echo installing", f"+id {ID}", "+state /srv/a b", "changed as well: verify.sh"):
        assert caplog.text.count(part) == 1
    assert f"will be refused: {ID} was edited after it was applied" in caplog.text
    assert "member" not in caplog.text
    assert "was edited" in fleet.commands("one")[-1]
    assert [line for line in fleet.commands("one") if line.endswith("apply --confirm 60 -")] == []


def test_a_fresh_machine_would_be_prepared_and_then_migrated(folder: Path) -> None:
    """Prepare foresees both from one status; execute asks again after each change."""
    fleet = Fleet(one=BARE)
    fleet.prepare(machine_prepared)
    fleet.prepare(migration_applied, migration=ID, folder=folder)
    assert fleet.commands("one") == ["status"]
    fleet.prepare(becomes_ready, fleet=fleet)
    order = fleet.state.get_op_order()
    fleet.host("one").op_hash_order[:] = [order[0], order[2], order[1]]
    fleet.execute()
    assert [one.split()[-1] for one in fleet.commands("one")[1:]] == [
        "status",
        "$rc",
        "status",
        "-",
    ]


@operation()
def becomes_ready(fleet: Fleet) -> Generator[FunctionCommand, None, None]:
    """What the command of machine_prepared does to a real machine."""
    yield FunctionCommand(fleet.answer, ("one", READY), {})


def test_without_a_runner_a_migration_says_what_is_missing(folder: Path) -> None:
    """Where nothing prepared the machine, the deploy is wrong, and the host says how."""
    (command,), _ = commands_of(migration_applied, BARE, executing=True, migration=ID, folder=folder)
    assert "put machine_prepared before" in run_failing(command)


def test_one_host_in_trouble_does_not_stop_the_others(folder: Path) -> None:
    """An unreachable host fails; the rest is migrated."""
    fleet = Fleet(well=READY, ill=UNKNOWN)
    fleet.state.config.FAIL_PERCENT = 100
    fleet.prepare(migration_applied, migration=ID, folder=folder)
    fleet.execute()
    assert fleet.failed() == {"ill"}
    assert fleet.commands("well")[-1].endswith("apply --confirm 60 -")
    assert not [line for line in fleet.commands("ill") if line.endswith("apply --confirm 60 -")]


@pytest.mark.parametrize("count", [1, 100])
def test_a_run_without_changes_costs_the_same_for_any_number(tmp_path: Path, count: int) -> None:
    """One status in each stage answers for every migration."""
    top = tmp_path / "many"
    ids = [f"20240206-{number:03}_demo" for number in range(count)]
    for id in ids:
        make_migration(top, id)
    fleet = Fleet(one=replace(READY, migrations=tuple(record(top / id) for id in ids)))
    fleet.prepare(machine_prepared)
    for migration in migrations_in(top):
        fleet.prepare(migration_applied, migration=migration.folder)
    fleet.execute()
    assert len(fleet.commands("one")) == 2
    results = fleet.state.results[fleet.host("one")]
    assert results.success_ops == count + 1


def test_a_change_is_followed_by_a_fresh_status(folder: Path) -> None:
    """What an operation changed is not answered from before."""
    make_migration(folder, "20240207-001_next")
    fleet = Fleet(one=READY)
    for migration in migrations_in(folder):
        fleet.prepare(migration_applied, migration=migration.folder)
    fleet.execute()
    kinds = ["apply" if line.endswith("apply --confirm 60 -") else "status" for line in fleet.commands("one")]
    assert kinds == ["status", "status", "apply", "status", "apply"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        *((word, True) for word in (True, "true", "True", "yes", "YES", "on", "1", 1, " y ")),
        *((word, False) for word in (False, "false", "no", "No", "off", "0", 0)),
        *((word, None) for word in ("", "ja", "truee", 2, -1, 1.0, None, "yes please", [True])),
    ],
)
def test_truth_from_outside_is_what_people_write_for_it(given: Any, read: bool | None) -> None:
    """As `--data restore_state=no` gives a text, which is not empty; what is neither is refused, nothing as well."""
    seen: list[Any] = []

    def operation(restore: Any, other: Any = None, **_: Any) -> None:
        seen.extend((restore, other))

    reader = _arguments.read_first(restore=_arguments.truth)(operation)
    if read is None:
        with pytest.raises(OperationError, match="restore cannot be"):
            reader(given)
        return
    reader(given, other=given, name="x")
    reader(restore=given)
    assert seen == [read, given, read, None]
    assert type(seen[0]) is type(seen[2]) is bool


def test_every_truth_and_every_time_of_every_operation_is_read() -> None:
    """With its name or without, as pyinfra's command line gives them, before any machine is asked."""
    found = set()
    for name in operations.__all__:
        operation = getattr(operations, name)
        for parameter in inspect.signature(operation).parameters.values():
            if "bool" in parameter.annotation or parameter.name in ("confirm", "timeout"):
                found.add(f"{name} {parameter.name}")
                wrong = [] if "str" in parameter.annotation else "maybe"
                with pytest.raises(OperationError, match=f"{parameter.name} cannot be"):
                    operation(**{parameter.name: wrong})
    assert {"generation_active restore_state", "s6_service running", "migration_applied confirm"} <= found
    with pytest.raises(OperationError, match="restore_state cannot be 'maybe'"):
        getattr(operations, "generation_active")("3", "maybe")  # noqa: B009 - a command line knows no types


def test_numbers_and_what_is_more_than_true_are_read_too() -> None:
    for given in ("-1", "1.5", True, "soon", "\u0663", None):
        with pytest.raises(OperationError, match="confirm cannot be"):
            _arguments.seconds("confirm", given)
    assert _arguments.seconds("confirm", " 30") == 30
    assert [_arguments.confirmation("confirm", given) for given in ("999", 0)] == [999, 0]
    with pytest.raises(OperationError, match="1 to 999 seconds"):
        _arguments.confirmation("confirm", "1000")
    assert [_arguments.truth_or_text("log", given) for given in ("no", "/x", True)] == [False, "/x", True]
    assert [_arguments.truth_or_none("running", given) for given in ("None", None, "off")] == [None, None, False]


@pytest.mark.parametrize("check_for_changes", [True, False])
def test_an_invalid_folder_stops_the_run_before_any_machine(folder: Path, check_for_changes: bool) -> None:
    """A broken neighbour, a wrong id, a missing dependency: refused as the deploy is loaded."""
    (folder / ID / "migration.yaml").write_text("description: x\ndepends: [20240101-001_gone]\n")
    fleet = Fleet(one=READY)
    fleet.state.check_for_changes = check_for_changes  # what `-y` turns off
    with pytest.raises(OperationError, match="20240101-001_gone, which is not in the folder"):
        fleet.prepare(migration_applied, migration=ID, folder=folder)
    with pytest.raises(OperationError, match=r"(?s)no such migration.*hint:"):
        fleet.prepare(migration_applied, migration=folder / "20240206-001_demos")
    (folder / ID / "migration.yaml").write_text("description: x\ndepend: []\n")
    with pytest.raises(OperationError, match=r"migration.yaml:2"):
        migrations_in(folder)
    assert fleet.commands("one") == []


def test_a_real_machine_is_prepared_by_one_command(tmp_path: Path) -> None:
    """It installs our runner, which finds that nothing is left to do, but to boot the machine through it."""
    (command,) = prepared_commands()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/input").write_bytes(b"".join(one.encode() for one in command.connector_arguments["_stdin"]))
    result = run_in_sandbox(
        f"""
        ( {command.get_raw_value()} ) </sandbox/input >&2 || echo "exit $?" >&2
        /data/system/runner/system-migrate status
        ls /tmp/tmp.* >&2 2>/dev/null && echo 'left something behind'
        :
        """,
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    status = parse(result.stdout)
    assert result.stderr.endswith("exit 3\n")
    (refusal,), host = commands_of(machine_prepared, status)
    assert "has not booted this machine" in run_failing(refusal)
    assert host.state.failed_hosts == {host}
    assert commands_of(machine_prepared, replace(status, unfit=None))[0] == [], (status, result.stderr)


def prepared_commands() -> list[StringCommand]:
    """What machine_prepared does to a fresh machine."""
    fleet = Fleet(one=BARE)
    with ctx_state.use(fleet.state), ctx_host.use(fleet.host("one")):
        found: list[StringCommand] = list(machine_prepared._inner())
    return found


def pyinfra(*arguments: str | Path, cwd: Path = TOP) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("pyinfra"), *arguments],
        capture_output=True, text=True, check=False, cwd=cwd,
    )  # fmt: skip


def inventory(tmp_path: Path, responses: dict[str, Any]) -> Path:
    path = tmp_path / "inventory.py"
    data = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": responses}
    path.write_text(f"hosts = [('@fake/one', {data!r})]\n")
    return path


@pytest.mark.parametrize("flag", ["-y", "--dry"])
def test_the_default_folder_lies_beside_the_deploy(tmp_path: Path, folder: Path, flag: str) -> None:
    """A deploy finds `migrations` beside it from whatever directory it is run."""
    (tmp_path / "elsewhere").mkdir()
    deploy = tmp_path / "deploy.py"
    deploy.write_text(
        f"from pyinfra_overlaymig.operations import migration_applied\nmigration_applied({ID!r}, name='Apply it')\n"
    )
    hosts = inventory(
        tmp_path, {"system-migrate status": json.dumps(READY.to_json()), "apply --confirm 60 -": "unpacking"}
    )
    result = pyinfra(flag, hosts, deploy, cwd=tmp_path / "elsewhere")
    assert result.returncode == 0, result.stderr
    assert "echo installing" in result.stderr
    folder.rename(tmp_path / "moved")
    result = pyinfra(flag, hosts, deploy, cwd=tmp_path / "elsewhere")
    assert result.returncode != 0
    for text in (f"{tmp_path}/migrations", "elsewhere/deploys/migrations", "folder="):
        assert text in result.stdout + result.stderr


def test_the_output_of_a_failure_is_printed_once(tmp_path: Path, folder: Path) -> None:
    """It streams while it runs, with its host before it, and is not repeated at the end."""
    hosts = inventory(
        tmp_path,
        {
            "system-migrate status": json.dumps(READY.to_json()),
            "apply --confirm 60 -": {"success": False, "stdout": "unpacking", "stderr": "it broke"},
        },
    )
    result = pyinfra("-y", hosts, "pyinfra_overlaymig.operations.migration_applied", folder / ID)
    assert result.returncode != 0
    for text in ("unpacking", "it broke"):
        assert result.stderr.count(f"[@fake/one] {text}") == 1, result.stderr


def test_json_stays_json(tmp_path: Path, folder: Path) -> None:
    """With --json, what streams goes to standard error, and the document says what changed."""
    hosts = inventory(
        tmp_path,
        {"system-migrate status": json.dumps(READY.to_json()), "apply --confirm 60 -": "unpacking"},
    )
    result = pyinfra("--json", "-y", hosts, "pyinfra_overlaymig.operations.migration_applied", folder / ID)
    assert "unpacking" in result.stderr
    assert json.loads(result.stdout)["results"]["totals"]["success"] == 1


def test_dry_says_all_and_does_nothing(tmp_path: Path) -> None:
    """`--dry` on the deploy of the demo shows the script and runs no command that changes."""
    hosts = inventory(tmp_path, {"system-migrate status": json.dumps(BARE.to_json())})
    result = pyinfra("--dry", hosts, "deploys/postgres.py")
    assert result.returncode == 0, result.stderr
    for text in ("will be installed", "apt-get install", "keeps as state: /var/lib/postgresql"):
        assert text in result.stderr
    assert "Beginning operation run" not in result.stderr


ALL_OF_THAT = """\
from pyinfra_overlaymig.operations import generation_active, machine_prepared, migration_applied

machine_prepared(name="Prepare")
generation_active(0, name="Begin")
migration_applied({folder!r}, name="Apply it")
generation_active({id!r}, name="Go to it")
"""


def test_what_the_run_itself_brings_is_not_foreseen_to_be_lacking(tmp_path: Path, folder: Path) -> None:
    """A runner, and a generation; without the first of them it is."""
    hosts = inventory(tmp_path, {"system-migrate status": json.dumps(BARE.to_json())})
    deploy = ALL_OF_THAT.format(folder=str(folder / ID), id=ID)
    (tmp_path / "deploy.py").write_text(deploy)
    done = pyinfra("--dry", hosts, tmp_path / "deploy.py")
    assert (done.returncode, "refused" in done.stderr) == (0, False), done.stderr
    (tmp_path / "deploy.py").write_text(deploy.replace('machine_prepared(name="Prepare")\n', ""))
    done = pyinfra("--dry", hosts, tmp_path / "deploy.py")
    assert done.returncode == 1
    assert done.stderr.count("will be refused: @fake/one has no runner") == 3
    assert "--> 3 operations will be refused, on 1 of 1 hosts" in done.stderr


NOTHING_OF_THAT = """\
from pyinfra_overlaymig.operations import generation_active, migration_applied

generation_active(7, name="Back")
generation_active(7, name="Again")
migration_applied({folder!r}, name="Apply it")
"""


@pytest.mark.parametrize("status", [READY, replace(READY, unfit=NOT_BOOTED), UNKNOWN], ids=["fit", "unfit", "unknown"])
def test_what_will_be_refused_is_counted_and_ends_a_dry_run_with_one(
    tmp_path: Path, folder: Path, status: Status
) -> None:
    """A generation that is not there, a dependency, a machine that will not do; and one that nothing can be said of."""
    make_migration(folder, "20240208-001_needs", f"description: x\ndepends: [{ID}]\n")
    answer = json.dumps(status.to_json()) if status.known else {"success": False, "stderr": "this needs root"}
    hosts = inventory(tmp_path, {"system-migrate status": answer})
    (tmp_path / "deploy.py").write_text(NOTHING_OF_THAT.format(folder=str(folder / "20240208-001_needs")))
    result = pyinfra("--dry", hosts, tmp_path / "deploy.py")
    assert result.returncode == 1, result.stderr
    if status.known:
        assert "will be refused: there is no generation 7" in result.stderr
        why = status.unfit.why if status.unfit else f"20240208-001_needs depends on {ID}, which is not applied here"
        assert f"will be refused: {why}" in result.stderr
        assert "--> 3 operations will be refused, on 1 of 1 hosts" in result.stderr
    else:
        assert "this needs root" in result.stderr


def test_what_was_foreseen_and_does_not_come_to_pass_is_forgotten(folder: Path) -> None:
    """Between a plan and its run somebody may have let go of the lock."""
    locked = replace(READY, lock=LockOwner("somebody", "elsewhere", 1, "boot", "now", "apply", "x"))
    fleet = Fleet(one=locked)
    fleet.prepare(migration_applied, migration=ID, folder=folder)
    assert fleet.failed() == {"one"}
    fleet.answer("one", READY)
    fleet.execute()
    assert fleet.failed() == set()


def test_a_service_that_something_else_brings_is_no_failure() -> None:
    """Foreseen as not there, it is when its turn comes, and nothing is to be done: the run has not failed."""
    fleet = Fleet(one=READY)
    fleet.responses("one")["s6-svstat"] = "now 1\nend"
    fleet.prepare(s6_service, service="demo")
    assert fleet.failed() == {"one"}
    up = "now 1\nservice demo\nstate true true true 12 7\ndefined aa\nkept aa\nend"
    fleet.responses("one")["s6-svstat"] = up
    fleet.execute()
    assert fleet.failed() == set()


def test_a_second_run_of_every_deploy_changes_nothing(tmp_path: Path) -> None:
    """Where everything of the folder is applied, each deploy reports no change."""
    records = tuple(record(one.folder) for one in migrations_in(TOP / "deploys/migrations"))
    status = replace(READY, migrations=records)
    hosts = inventory(tmp_path, {"system-migrate status": json.dumps(status.to_json())})
    for deploy in sorted(TOP.glob("deploys/*.py")):
        result = pyinfra("--json", "-y", "--data", "generation=0", hosts, deploy)
        totals = json.loads(result.stdout)["results"]["totals"]
        assert totals["hosts"] == totals["no_change"] > 0


@pytest.mark.parametrize("name", ["generation_active", "machine_prepared", "migration_applied", "s6_service"])
def test_every_operation_is_documented(name: str) -> None:
    """An operation says what is so afterwards, names each argument, and shows an example."""
    operation = getattr(operations, name)
    for argument in inspect.signature(operation._inner).parameters:
        assert f"+ {argument}: " in operation.__doc__
    assert "**Example:**" in operation.__doc__
