"""`overlaymig diff` and `overlaymig state`: what a migration did on a machine, and what its manifest lacks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import click

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.capture import Capture, parse
from pyinfra_overlaymig.document import read
from pyinfra_overlaymig.errors import InvalidMigration, OverlaymigError, from_runner_exit, runner_exit_meaning
from pyinfra_overlaymig.format.octal import unescape
from pyinfra_overlaymig.migration import load

_RUNNER = "/data/system/runner/system-migrate"
_LAB = re.compile(r"lab-[0-9]+")


@click.command()
@click.argument("host")
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Print everything that is recorded as JSON.")
def diff(host: str, id: str, as_json: bool) -> None:
    """Show what migration (or capture) ID changed on HOST, and who did it: by package and directory.

    HOST is a machine of the lab, or whatever ssh takes.

    \b
    Examples:
      overlaymig diff lab-1 20240206-001_add_postgresql
      overlaymig diff root@db1.example.net 20240206-001_add_postgresql --json | jq '.unexplained'
    """
    if as_json:
        click.echo(json.dumps(_capture(host, id).to_json(), indent=2))
    else:
        click.echo(_ask(host, "diff", id).decode(errors="replace"), nl=False)


@click.command()
@click.argument("host")
@click.argument("id")
@click.argument("migration", type=click.Path(path_type=Path), required=False)
def state(host: str, id: str, migration: Path | None) -> None:
    """Propose state paths, from where migration ID wrote on HOST; write them into MIGRATION if it is named.

    \b
    Examples:
      overlaymig state lab-1 20240501-001_add_redis
      overlaymig state lab-1 20240501-001_add_redis deploys/migrations/20240501-001_add_redis
    """
    proposed = _capture(host, id).proposed_state()
    if not proposed:
        click.echo("nothing to add: it wrote under no state prefix but what it declares and what packages bring")
    elif migration is None:
        click.echo("state:\n" + "".join(f"  - {_yaml(path)}\n" for path in proposed), nl=False)
    else:
        _write_state(migration, proposed)
        click.echo(f"{migration / 'migration.yaml'}: state paths added: {', '.join(proposed)}")


def _capture(host: str, id: str) -> Capture:
    return parse(_ask(host, "diff", "--raw", id).decode("utf-8", "surrogateescape"))


def _ask(host: str, *words: str) -> bytes:
    """What the runner of ``host`` answers."""
    if _LAB.fullmatch(host):
        argv = labs.machine(labs.Lab.default(), host).enter(_RUNNER, *words)
    else:
        argv = ["ssh", "--", host, shlex.join([_RUNNER, *words])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or runner_exit_meaning(done.returncode)
        raise from_runner_exit(done.returncode, f"{host}: {said}", hint="look at: overlaymig lab status")
    return done.stdout


def _write_state(migration: Path, proposed: tuple[str, ...]) -> None:
    """Add state paths to a manifest, leaving all else in it as it is."""
    load(migration)
    file = migration / "migration.yaml"
    before = file.read_text("utf-8")
    lines = before.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    keys = read(file, "the manifest").mapping()
    added = [f"  - {_yaml(path)}\n" for path in proposed]
    if "state" in keys:
        items = keys["state"].items()
        if not items or not lines[items[-1].line - 1].lstrip().startswith("- "):
            raise keys["state"].wrong("`state` is not written as one path a line", "write `- path`, one a line")
        last = lines[items[-1].line - 1]
        indent = last[: len(last) - len(last.lstrip())]
        lines[items[-1].line : items[-1].line] = [f"{indent}{line.lstrip()}" for line in added]
    else:
        lines += ["state:\n", *added]
    file.write_text("".join(lines), "utf-8")
    try:
        load(migration)
    except InvalidMigration as error:
        file.write_text(before, "utf-8")
        raise OverlaymigError(f"these state paths do not fit: {error}", hint=error.hint) from error


def _yaml(path: str) -> str:
    """A path as a YAML string; JSON's are YAML's too."""
    text = unescape(path).decode("utf-8", "surrogateescape") if "\\" in path else path
    return text if re.fullmatch(r"/[A-Za-z0-9_./+-]*", text) else json.dumps(text, ensure_ascii=False)
