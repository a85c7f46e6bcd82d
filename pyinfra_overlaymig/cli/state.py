"""`overlaymig state`: what a manifest lacks, by what its migration did on a machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from pyinfra_overlaymig.cli.asking import capture
from pyinfra_overlaymig.errors import InvalidMigration, OverlaymigError
from pyinfra_overlaymig.format.octal import unescape_text
from pyinfra_overlaymig.migration.document import read
from pyinfra_overlaymig.migration.folder import load


@click.command()
@click.argument("host")
@click.argument("id")
@click.argument("migration", type=click.Path(path_type=Path), required=False)
@click.option("--sudo", is_flag=True, help="Ask as root by sudo, where ssh logs in as another user.")
def state(host: str, id: str, migration: Path | None, sudo: bool) -> None:
    """Propose state paths, from where migration ID wrote on HOST; write them into MIGRATION if it is named.

    \b
    Examples:
      overlaymig state lab-1 20240501-001_add_redis
      overlaymig state lab-1 20240501-001_add_redis deploys/migrations/20240501-001_add_redis
      overlaymig state --sudo admin@cache1.example.net 20240501-001_add_redis
    """
    proposed = capture(host, id, sudo=sudo).proposed_state()
    if not proposed:
        click.echo("nothing to add: it wrote under no state prefix but what it declares and what packages bring")
    elif migration is None:
        click.echo("state:\n" + "".join(f"  - {_yaml(path)}\n" for path in proposed), nl=False)
    else:
        _write_state(migration, proposed)
        click.echo(f"{migration / 'migration.yaml'}: state paths added: {', '.join(proposed)}")


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
    text = unescape_text(path) if "\\" in path else path
    return text if re.fullmatch(r"/[A-Za-z0-9_./+-]*", text) else json.dumps(text, ensure_ascii=False)
