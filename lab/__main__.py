"""python -m kubewire.lab, and the kubewire of an installation: the command line, from its first moment."""

import signal
import sys


def main() -> int:
    """Until a command has something to clean up (launch.raise_on_signals), ctrl-C just ends it: no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kubewire.lab.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
