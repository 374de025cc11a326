import sys

from kubewire.components.kubelet.main import main

sys.exit(main(sys.argv[1:]))
