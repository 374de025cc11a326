"""Set-up of the machine: Debian's packages, the virtual environment, the lock of Python packages."""
