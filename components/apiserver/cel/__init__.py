"""CEL, the expression language of validation rules, match conditions and admission policies.

Google's C++ implementation (cel-expr-python) parses, checks and evaluates. It has the checker and
the error texts of cel-go, which Kubernetes uses. engine.py makes environments with the extensions
that Kubernetes enables, library.py adds the functions of its own libraries
(https://kubernetes.io/docs/reference/using-api/cel/), and schematypes.py and schemavalues.py lead
from structural schemas to types and values.

The library is 14 MB of machine code, so it is imported when the first expression is compiled.
"""
