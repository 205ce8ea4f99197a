"""The limit of a process's open files, of which each connection is one. Used at the start.

The soft limit, 1,024 by default, is for programs that use `select(2)`; ours take the hard one.
"""

from __future__ import annotations

import errno
import resource
from contextlib import suppress

# With a limit of "unlimited": the kernel's own default for `fs.nr_open`.
_MOST_FILES = 1024 * 1024
_LEAST_RESERVE = 64
LACKING = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""Errors of a connection that say something about this process or machine, not about the peer."""


def raise_limit() -> int:
    """Raises the soft limit to the hard one; the files that may be open from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else hard
    if soft not in (resource.RLIM_INFINITY, wanted) and soft < wanted:
        # Refused where the kernel's own bound is lower: the soft limit stays.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


def connections_within(limit: int, wanted: int, ports: int) -> int:
    """Connections for each of `ports` that fit in a limit of open files, `wanted` at most.

    A quarter of the files are reserved: for connections to pods, files and pipes.
    """
    room = limit - max(_LEAST_RESERVE, limit // 4)
    return max(1, min(wanted, room // ports))
