"""Set-up of the machine: Debian packages, the virtual environment, the lock of Python packages."""
