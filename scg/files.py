"""Files that are written whole or not at all: for checkpoints and reports."""

import errno
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path

from scg.errors import ScgError, ScgTypeError, ScgValueError, here

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind: what a killed writer left there stays
    fcntl = None  # type: ignore[assignment]


class FileWriteError(ScgError, OSError):
    """The path names what is no regular file (a directory, a pipe, a device, a link to nothing), and is left as it
    is."""


def write(path: "str | os.PathLike[str]", data: bytes) -> None:
    """Make ``data`` the content of the regular file ``path``, all of it or nothing: a reader, a crash or a full disk
    meets the old file or the new one.

    The data go to a temporary file in the same directory (a renaming cannot cross file systems), to the disk, and then
    into place. A link stays one, and its target is written. The mode of a file that is replaced is kept, and its owner
    where the system allows that. A writer holds a lock on its temporary file, so that what a killed one left is known
    by its name and by a lock that nobody holds; it is removed here.

    Raises ScgTypeError and ScgValueError for what is no path, FileWriteError for what is no regular file, and OSError
    where the system refuses.
    """
    target, old = _target(as_path(path))
    _sweep(target)
    handle, temporary = _temporary(target, old)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            if old is not None:
                _like(file.fileno(), old)
            os.fsync(file.fileno())
            os.replace(temporary, target)  # the lock is held until it has its name
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def as_path(path: "str | os.PathLike[str]") -> Path:
    """The path; ScgTypeError or ScgValueError for what is none."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise ScgTypeError(f"a path is a string or a pathlib.Path, got {path!r} ({here()})") from None
    if not text or "\0" in text:
        raise ScgValueError(f"a path is not empty and holds no zero byte, got {text!r} ({here()})")
    return Path(text)


def irregular(mode: int) -> str:
    """What a file of this mode is, if it is no regular one; else nothing."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "no regular file")


def _target(path: Path) -> tuple[Path, os.stat_result | None]:
    """The file to be written, at the end of all links, and what stands there, if anything."""
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            what = f"a link to {os.readlink(path)}, where there is nothing"
            raise FileWriteError(
                errno.EINVAL, f"{path} is {what}, and is left as it is: remove it, or name another file"
            ) from None
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such directory to write in", str(path.parent)) from None
        return path, None
    what = irregular(found.st_mode)
    if what:
        raise FileWriteError(
            errno.EINVAL, f"{path} is {what}, no regular file, and is left as it is: name another file"
        )
    return Path(os.path.realpath(path)), found


def _stem(target: Path) -> str:
    """Of the names of its temporary files; by its digest where they would be longer than a name may be (255 bytes,
    mostly)."""
    name = target.name
    return name if len(os.fsencode(name)) <= 240 else hashlib.sha256(os.fsencode(name)).hexdigest()


def _temporary(target: Path, old: os.stat_result | None) -> tuple[int, Path]:
    """A new file beside the target, locked: no other user may read it before it has the old file's mode."""
    while True:
        temporary = target.with_name(f".{_stem(target)}.{secrets.token_hex(4)}.tmp")
        handle = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0),
            0o666 if old is None else 0o600,
        )
        if _lock(handle) is not False and os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # another writer took it for what a killed one left, before it was locked


def _sweep(target: Path) -> None:
    """Remove the temporary files of this target that no writer holds."""
    if fcntl is None:
        return
    kind = re.compile(rf"\.{re.escape(_stem(target))}\.[0-9a-f]{{8}}\.tmp")
    try:
        names = [name for name in os.listdir(target.parent) if kind.fullmatch(name)]
    except OSError:
        return  # a directory that may be written and not read
    for name in names:
        left = target.with_name(name)
        try:
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # gone, or another user's
        try:
            if not irregular(os.fstat(handle).st_mode) and _lock(handle):
                left.unlink(missing_ok=True)
        except OSError:
            pass
        finally:
            os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether the lock was free and is ours now; None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _like(handle: int, old: os.stat_result) -> None:
    """Give the file the owner of the old one, where that is allowed, and then its mode."""
    if os.name != "posix":
        return
    new = os.fstat(handle)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(handle, old.st_uid, old.st_gid)
        except OSError:
            pass
    os.fchmod(handle, stat.S_IMODE(old.st_mode))


def _sync_directory(directory: Path) -> None:
    """Make the renaming itself durable, where the system can open a directory."""
    if os.name == "posix":
        try:
            handle = os.open(directory, os.O_RDONLY)
        except PermissionError:
            return  # it may be written and not read
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
