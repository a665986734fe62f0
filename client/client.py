"""`python client/client.py`: the same as `python -m client`, for those who start a file."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # the file's own folder stands in the path, where the package's parent has to
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from client.__main__ import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
