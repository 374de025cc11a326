"""python -m lab, and the kubewire of an installation: the command line, from its first moment."""

import signal
import sys


def main() -> int:
    """Until a command has something to clean up (lab.launch.raise_on_signals), ctrl-C just ends it: no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lab.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
