import sys

from kubewire.components.networks.aws_vpc_cni.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
