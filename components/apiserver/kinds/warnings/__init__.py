"""What clients are told about an object that is valid, but does not do what its writer may expect
(WarningsOnCreate and WarningsOnUpdate of upstream's strategies).

table.py lists the kinds. The functions read a valid object with its defaults, and return texts for
Warning headers.
"""
