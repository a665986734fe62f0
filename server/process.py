"""What a server asks of a process that it has to itself. Nothing here is for a server inside a test or a notebook."""

from __future__ import annotations

import gc
from contextlib import suppress

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]  # a module otherwise

OPEN_FILES = 65_536
"""One for each connection; shells commonly allow a program 1,024 unless it asks for more."""
GARBAGE = (10_000, 10, 10)
"""With Python's own (700, 10, 10) all objects of 2,000 members are looked through again and again while these come:
0.8 s of their 2.1 s on a busy machine, up to 0.2 s of it at once, in which nobody gets an answer; with these 0.25 s."""


def prepare() -> None:
    """To be called when all modules are loaded and no call is taken yet."""
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with suppress(ValueError, OSError):  # macOS has another limit yet, and says no: then what is has to do
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    gc.freeze()  # what is there now stays, and need not be looked through
    gc.set_threshold(*GARBAGE)
