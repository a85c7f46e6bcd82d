"""`overlaymig lab …`: the lab for operators; it only parses, prints and calls."""

from __future__ import annotations

import json
import os
import shlex
import signal
from typing import NoReturn

import click

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.lab import prerequisites, status, table
from pyinfra_overlaymig.lab.layout import MAX_MACHINES

_NONE = "no machine yet; make some: overlaymig lab up -n 3"
_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group()
def lab() -> None:
    """Throwaway machines on this host: real ssh, real s6, own network, own /data.

    \b
    Examples:
      overlaymig lab up -n 3
      pyinfra inventories/lab.py deploys/postgres.py
      overlaymig lab status
      overlaymig lab down

    OVERLAYMIG_LAB_DIR chooses the lab (default /var/lib/overlaymig/lab), OVERLAYMIG_CACHE_DIR
    where the base root is kept (default /var/cache/overlaymig).
    """


@lab.command()
@click.option("--vm", is_flag=True, help="Make new machines virtual: a kernel of their own, power that can be cut.")
@click.option(
    "-n",
    "--machines",
    "count",
    type=click.IntRange(1, MAX_MACHINES),
    help="How many machines  [default: those there are, or 3]",
)
def up(count: int | None, vm: bool) -> None:
    """Make lab-1 … lab-N run; what runs already is left alone.

    \b
    Examples:
      overlaymig lab up -n 3
      overlaymig lab up --vm -n 1 # under QEMU's software emulation: slow, and real
      overlaymig lab up --vm      # beside machines that are not virtual: one more, which is
      overlaymig lab up           # after a reboot of this host: all of them again
    """
    here = labs.Lab.default()
    labs.up(here, count, click.echo, kind="vm" if vm else "namespaces")
    running = [machine for machine in labs.machines(here) if machine.running]
    click.echo(f"{len(running)} machines run: {', '.join(map(_with_kind, running))}")
    if vm:
        click.echo(f"one more virtual machine: overlaymig lab up --vm -n {int(running[-1].name[4:]) + 1}")
    click.echo("next: pyinfra inventories/lab.py deploys/postgres.py")


def _with_kind(machine: labs.Machine) -> str:
    return machine.name if machine.kind != "vm" else f"{machine.name} (virtual)"


@lab.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def down(names: tuple[str, ...]) -> None:
    """Remove every machine, its /data included, and all traces of the lab on this host; or only those that are named.

    \b
    Examples:
      overlaymig lab down
      overlaymig lab down lab-3   # the others stay
    """
    here = labs.Lab.default()
    there = here.subnet.exists()
    labs.down(here, click.echo, names)
    left = [machine.name for machine in labs.machines(here)]
    if left:
        click.echo(f"the others stay: {', '.join(left)}")
    elif there:
        click.echo(f"the lab in {here.directory} is gone; the base root stays in {here.cache} for the next one")
    else:
        # Another one may run: whoever made it in another place must not take this for its end.
        click.echo(f"there was no lab in {here.directory} (OVERLAYMIG_LAB_DIR names another place)")


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def ls(as_json: bool) -> None:
    """List the machines of the lab.

    \b
    Examples:
      overlaymig lab ls
      overlaymig lab ls --json | jq -r '.[].address'
    """
    found = labs.machines(labs.Lab.default())
    if as_json:
        rows = [
            {
                "name": machine.name,
                "kind": machine.kind,
                "address": machine.address,
                "running": machine.running,
                "pid": machine.pid,
                "data": str(machine.data),
                "console": str(machine.console),
            }
            for machine in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    lines = [
        (machine.name, machine.kind, machine.address, "running", str(machine.pid), str(machine.data))
        if machine.running
        else (machine.name, machine.kind, machine.address, "stopped", "-", str(machine.data))
        for machine in found
    ]
    if lines:
        table.show(("machine", "kind", "address", "state", "pid", "data"), lines)
    else:
        click.echo(_NONE)


@lab.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with each machine's whole status.")
def show_status(as_json: bool) -> None:
    """Ask every machine for its generation, migrations and services.

    \b
    Examples:
      overlaymig lab status
      overlaymig lab status --json | jq '.[] | {name, state}'
    """
    answers = status.ask_all(labs.Lab.default())
    if as_json:
        click.echo(status.as_json(answers))
        return
    if answers:
        table.show(status.COLUMNS, status.rows(answers))
    else:
        click.echo(_NONE)
    # Not in the table, which is for other programs too.
    for remedy in status.remedies(answers):
        click.echo(remedy, err=True)


@lab.command()
@click.argument("name")
def restart(name: str) -> None:
    """End machine NAME as a loss of power would, and boot it with nothing but its /data.

    \b
    Example:
      overlaymig lab restart lab-2
    """
    labs.restart(labs.Lab.default(), name, click.echo)


@lab.command("exec", context_settings=_PASS_ON)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def execute(name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in machine NAME as root without its sshd, and exit as it does.

    A virtual machine has no other way in than ssh: there, this is `ssh` with a plain environment.

    \b
    Examples:
      overlaymig lab exec lab-1 -- sh
      overlaymig lab exec lab-1 -- tail /var/log/dpkg.log
    """
    prerequisites.check_root()
    _become(labs.machine(labs.Lab.default(), name).enter(*_plain(command)))


@lab.command(context_settings=_PASS_ON)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, command: tuple[str, ...]) -> None:
    """Log in to machine NAME over ssh with the lab's own key, or run COMMAND there.

    COMMAND reaches the machine word by word as given here; a single word is a shell line.

    \b
    Examples:
      overlaymig lab ssh lab-1
      overlaymig lab ssh lab-1 -- su - postgres -c 'psql -c "select version()"'
    """
    here = labs.Lab.default()
    found = labs.machine(here, name)
    found.must_run()
    words = _plain(command)
    line = list(words) if len(words) <= 1 else [shlex.join(words)]
    _become([*labs.ssh_argv(here, found), *line])


def _plain(command: tuple[str, ...]) -> tuple[str, ...]:
    """Drop the `--` before a command: click leaves it where NAME came first."""
    return command[1:] if command[:1] == ("--",) else command


def _become(argv: list[str]) -> NoReturn:
    """Replace this process, so that signals and the exit code are the command's own."""
    # Python ignores it, and what is ignored stays so: into `head`, programs would complain.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is what is wanted
