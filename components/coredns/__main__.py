import sys

from kubewire.components.coredns.main import main

sys.exit(main(sys.argv[1:]))
