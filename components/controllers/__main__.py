"""python -m components.controllers"""

import sys

from components.controllers.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
