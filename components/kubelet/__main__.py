import sys

from components.kubelet.main import main

sys.exit(main(sys.argv[1:]))
