"""Files that survive a power cut: on disk before anything points to them. Called by whoever writes artefacts."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on disk. Some volumes know that of files alone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """The same for a folder and every file in it, not for folders below."""
    for path in folder.iterdir():
        if path.is_file():
            sync(path)
    sync(folder)
