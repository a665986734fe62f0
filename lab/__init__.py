"""The lab: the demo, the guided labs, and what sets up and checks the kit."""

import sys

if sys.version_info < (3, 8):  # noqa: UP036 - so old that the next file cannot even be parsed
    sys.stderr.write("The kit needs Python 3.11 or newer. / El kit necesita Python 3.11 o posterior.\n")
    sys.exit(3)
