"""python -m kubewire.components.apiserver"""

import sys

from kubewire.components.base.authorities import without_authorities

with without_authorities():
    from kubewire.components.apiserver.main import main

sys.exit(main(sys.argv[1:]))
