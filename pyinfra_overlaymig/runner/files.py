"""Files that become another by one rename, and names that come and go; trees of files are trees.py's."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress

from pyinfra_overlaymig.format.paths import LOCK, RUN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def there(path: str) -> bool:
    """Whether ``path`` exists, dangling links too."""
    return os.path.lexists(path)


def plain_dir(path: str) -> bool:
    """Whether ``path`` is a directory itself, no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def read(path: str) -> str:
    """What is in the file ``path``, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def first_line(path: str) -> str:
    """The first line of ``path`` without its end, empty where there is none."""
    return read(path).partition("\n")[0]


def read_end(path: str, most: int) -> str:
    """The last bytes of the file ``path`` as text, empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read(most).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def lines(path: str) -> list[str]:
    """The lines of ``path``, none where it does not exist."""
    text = read(path)
    return text.removesuffix("\n").split("\n") if text else []


def names(directory: str) -> list[str]:
    """What is in ``directory``, in byte order; nothing where there is none."""
    try:
        return sorted(os.listdir(directory), key=os.fsencode)
    except FileNotFoundError:
        return []


def write_file(path: str, text: str, mode: int = 0o600) -> None:
    """``text`` becomes ``path`` by one rename; a crash leaves the old or the new content."""
    new = f"{path}.new"

    def write() -> None:
        # Its name can be on the disk before its contents are: after a loss of power they would be zeros.
        write_plain(new, text, mode, durable=not path.startswith((f"{RUN}/", f"{LOCK}/")))
        os.rename(new, path)

    _anyway(write, path)


def _anyway(step: Callable[[], None], path: str) -> None:
    """Changes ``path``, also where somebody made it or its directory immutable: a record does not shut the way back."""
    try:
        step()
    except PermissionError:
        from pyinfra_overlaymig.runner import immovable

        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            immovable.anyway(step, directory, os.path.basename(path))
        finally:
            os.close(directory)


def write_plain(path: str, text: str, mode: int = 0o600, *, durable: bool = False) -> None:
    """``text`` in ``path``, which nobody reads before its directory has its place."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(descriptor)


def write_lines(path: str, many: list[str] | tuple[str, ...]) -> None:
    """As `write_plain`, of whole lines."""
    write_plain(path, "".join(f"{one}\n" for one in many))


def append_line(path: str, line: str) -> None:
    """One line more in ``path``."""
    with open(path, "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(f"{line}\n")


def mark(path: str) -> None:
    """``path`` is there, and empty."""
    write_plain(path, "")


def sync_dir(path: str) -> None:
    """Makes durable which names the directory ``path`` has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_link(target: str, path: str) -> None:
    """``path`` becomes a symbolic link to ``target``, by one rename."""
    new = f"{path}.new"

    def replace() -> None:
        with suppress(FileNotFoundError):
            os.unlink(new)
        os.symlink(target, new)
        os.rename(new, path)

    _anyway(replace, path)


def make_dirs(*paths: str, mode: int = 0o755) -> None:
    """These are directories."""
    for path in paths:
        os.makedirs(path, mode, exist_ok=True)


def drop(*paths: str) -> None:
    """These are gone, with all that is in them."""
    for path in paths:
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (IsADirectoryError, PermissionError):
            # Of an immutable directory, link(2) and its like say that it is not permitted.
            from pyinfra_overlaymig.runner.trees import remove_tree

            remove_tree(path)


@contextmanager
def inside(directory: str) -> Iterator[None]:
    """The working directory is ``directory`` meanwhile."""
    back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        try:
            yield
        finally:
            os.fchdir(back)
    finally:
        os.close(back)
