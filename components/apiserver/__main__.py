"""python -m kubewire.components.apiserver"""

import gc
import sys

from kubewire.components.base.authorities import without_authorities

# What is imported stays, so that the collections of older objects find nothing, but would take a
# tenth of the time. The server collects as usual when it is ready.
gc.set_threshold(20_000, 1_000)
with without_authorities():
    from kubewire.components.apiserver.main import main

sys.exit(main(sys.argv[1:]))
