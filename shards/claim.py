"""Taking a free name on local disk in one step, so that one of several writers gets it."""

import ctypes
import errno
import os
from pathlib import Path

_LINK_REFUSED = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1


def take_name(temporary: Path, final: Path) -> bool:
    """Move the file to its final name unless that is taken."""
    created = create_once(temporary, final)
    if created is not None:
        return created
    if final.exists():
        return False
    temporary.rename(final)  # the last writer wins here; each read is still of one whole file
    return True


def create_once(temporary: Path, final: Path) -> bool | None:
    """Take a free name in one step, by link(2) or renameat2(2); None where neither works."""
    try:
        os.link(temporary, final)  # not open("xb"): a kill would leave an empty "commit"
        return True
    except FileExistsError:
        return final.samefile(temporary)  # NFS repeats a link whose answer was lost
    except OSError as error:
        if error.errno not in _LINK_REFUSED:
            raise
    return _rename_if_free(temporary, final)


def _rename_if_free(temporary: Path, final: Path) -> bool | None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return None
    old, new = os.fsencode(temporary), os.fsencode(final)
    if rename(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    if code not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(code, os.strerror(code), str(final))
    return None
