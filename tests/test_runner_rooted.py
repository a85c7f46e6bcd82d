"""A path of another root is followed inside of it, wherever its links point."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyinfra_overlaymig.runner.rooted import resolve


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with links of every kind."""
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "opt/app-1.2").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "opt/app").symlink_to("app-1.2")
    (tmp_path / "spool").symlink_to("/opt/app")
    (tmp_path / "out").symlink_to("../../../../etc")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("/nowhere/else")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/usr/lib/x", "/usr/lib/x"),
        ("/lib/x", "/usr/lib/x"),
        ("/opt/app/data", "/opt/app-1.2/data"),
        ("/spool/mail", "/opt/app-1.2/mail"),
        ("/out/passwd", "/etc/passwd"),
        ("/../../etc", "/etc"),
        ("/opt/./app//x", "/opt/app-1.2/x"),
        ("/dangling/x", "/nowhere/else/x"),
        ("", ""),
    ],
)
def test_links_are_followed_inside(root: Path, path: str, meant: str) -> None:
    """Relative, absolute, chained and dangling ones; `..` ends at the root."""
    assert resolve(str(root), path) == f"{root}{meant}"


def test_a_circle_is_an_error(root: Path) -> None:
    """As of the kernel."""
    with pytest.raises(OSError, match="Too many levels"):
        resolve(str(root), "/loop")
