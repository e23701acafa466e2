"""Memory backed by a file without a name: an L3 larger than RAM, on a fast local disk.

Nothing of it outlives the process, however that ends; what is to be kept goes into a FileStore.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from pathlib import Path

from speckv_pynq.errors import ConfigError, PoolError
from speckv_pynq.pool.mapped import MappedPool, whole_pages


def open_spill(directory: Path, nbytes: int) -> MappedPool:
    """Takes all blocks of the file now: a disk that fills later would end the process by SIGBUS.

    ConfigError where the directory is missing; PoolError when the disk is full or refuses.
    """
    name = f"file:{directory}"
    if not directory.is_dir():
        raise ConfigError(f"pool {name}: no such directory")
    size = whole_pages(name, nbytes, mmap.PAGESIZE)
    try:
        fd = _unnamed(directory)
    except OSError as error:
        raise PoolError(f"pool {name}: {error}") from error
    try:
        os.posix_fallocate(fd, 0, size)
        pages = mmap.mmap(fd, size, flags=mmap.MAP_SHARED)
    except (OSError, ValueError) as error:
        full = getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        free = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
        what = f"{size} bytes asked, {free} free" if full else str(error)
        raise PoolError(f"pool {name}: {what}") from error
    finally:
        os.close(fd)  # the mapping keeps the file
    return MappedPool(
        "file", str(directory), pages, size, mmap.PAGESIZE, gives_back=False, anonymous=False
    )


def _unnamed(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    fd, path = tempfile.mkstemp(prefix=".speckv-", dir=directory)  # NFS, overlays
    Path(path).unlink()
    return fd
