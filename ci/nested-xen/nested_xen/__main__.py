"""`python -m nested_xen` is the command `lab`."""

import sys

from nested_xen.cli import main

sys.exit(main())
