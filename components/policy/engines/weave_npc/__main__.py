"""`python -m kubewire.components.policy.engines.weave_npc`"""

import sys

from kubewire.components.policy.engines.weave_npc.main import main

sys.exit(main(sys.argv[1:]))
