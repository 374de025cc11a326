import sys

from kubewire.components.kube_proxy.main import main

sys.exit(main(sys.argv[1:]))
