"""`python -m client`."""

from __future__ import annotations

import os
import sys

from kit.bootstrap import ctrl_c_ends_at_once, reexecute

ctrl_c_ends_at_once()
reexecute()
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # grpc-core would add lines of its own to ours on standard error

from client.command import main as main  # noqa: E402  # not before it is sure that grpc can be imported

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
