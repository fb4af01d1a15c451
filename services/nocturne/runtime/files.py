"""What makes a change of a folder stay: a file that was made, moved or removed is on the disk only
once its folder is.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """What was made, moved or removed in the folder stays so, whatever happens. OSError when the
    disk does not say so.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
