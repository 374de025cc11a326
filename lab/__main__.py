"""Entry point of `python -m kubewire.lab` and of the installed `kubewire` command."""

import signal
import sys


def main() -> int:
    """Run the command line. Until a command has something to clean up (launch.raise_on_signals),
    ctrl-C ends the process at once, without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kubewire.lab.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
