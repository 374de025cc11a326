"""python -m kubewire.components.apiserver"""

import gc
import sys

from kubewire.components.base.authorities import without_authorities

# What is imported stays, so collections find nothing but take a tenth of the time. The server
# enables them again when it is ready.
gc.disable()
with without_authorities():
    from kubewire.components.apiserver.main import main

sys.exit(main(sys.argv[1:]))
