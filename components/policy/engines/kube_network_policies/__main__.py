"""`python -m kubewire.components.policy.engines.kube_network_policies`"""

import sys

from kubewire.components.policy.engines.kube_network_policies.main import main

sys.exit(main(sys.argv[1:]))
