"""Become another program that dies with its parent, as another user if asked.

Run as a file by an isolated interpreter (about 15 ms), never imported by the supervisor:
`python -I -S launch.py <parent pid> <signal> <uid>:<gid>|- -- argv…`. A callback between fork and
exec would do the same, but is not safe in a process that has threads.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522


def main() -> None:
    parent, signal, user, separator, *argv = sys.argv[1:]
    assert separator == "--"
    assert argv
    libc = ctypes.CDLL(None, use_errno=True)
    if user != "-":
        uid, gid = map(int, user.split(":"))
        _become(libc, uid, gid)
    # After the change of user, which would clear it; before exec, which keeps it.
    _check(libc.prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0), "PR_SET_PDEATHSIG")
    if os.getppid() != int(parent):
        sys.exit("the parent is gone already")
    try:
        os.execvpe(argv[0], argv, os.environ)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")


def _become(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    """Drop root, keeping only the right to pass through folders that are closed to others.

    PostgreSQL refuses root, yet a home (or the installation) may well lie under /root. Keeping one
    capability leaves the folders' modes as they are; opening them to everyone would not.
    """
    _check(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "PR_SET_KEEPCAPS")
    # Or else access(2), by which PostgreSQL looks for its own programs, would not know of the right
    # that is kept. A container may not allow it; then such folders are as closed as they look.
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if _keep(libc, capability):
            return
    # The change of user took nothing away by itself: it is told not to.
    _check(_set_capabilities(libc, 0), "capset")


def _keep(libc: ctypes.CDLL, capability: int) -> bool:
    """Keep one capability across exec; False if this process never had it (a container)."""
    if _set_capabilities(libc, 1 << capability) != 0:
        return False
    raised: int = libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    return raised == 0


def _set_capabilities(libc: ctypes.CDLL, mask: int) -> int:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # Three words (effective, permitted, inheritable) for capabilities 0-31, then for 32-63.
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    code: int = libc.capset(header, data)
    return code


def _check(code: int, what: str) -> None:
    if code != 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
