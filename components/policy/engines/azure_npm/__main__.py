"""`python -m kubewire.components.policy.engines.azure_npm`"""

import sys

from kubewire.components.policy.engines.azure_npm.main import main

sys.exit(main(sys.argv[1:]))
