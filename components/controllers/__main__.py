"""python -m kubewire.components.controllers"""

import sys

from kubewire.components.controllers.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
