"""python -m lab: the kubewire command."""

import sys

from lab.cli import main

sys.exit(main())
