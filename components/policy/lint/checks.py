"""What lint looks for: a table of checks, and the form of a finding.

Each check has a code that stays the same, so that a project can ignore it by name. A finding is an
error if the policy cannot do what it says, a warning if it probably does not do what was meant, and
a note if it is worth a look.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kubewire.components.policy.model import ObjectKey

_DOCS = "https://kubernetes.io/docs/concepts/services-networking/network-policies/"


class Severity(enum.Enum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Check:
    """code: stable. title: what the mistake is. link: where the rule behind it is written."""

    code: str
    severity: Severity
    title: str
    link: str = _DOCS


@dataclass(frozen=True)
class Finding:
    """where: the path of the field, such as `spec.ingress[0].from[1]`. text: a sentence that says
    what happens, and what would be right. line: of the file, 0 if unknown; excerpt: its text."""

    check: Check
    file: str
    policy: ObjectKey
    where: str
    text: str
    line: int = 0
    excerpt: str = ""

    @property
    def place(self) -> str:
        """`FILE:LINE`."""
        return f"{self.file}:{self.line}" if self.line else self.file


INVALID = Check("KW001", Severity.ERROR, "The policy is not valid")
NOT_ENFORCED = Check("KW002", Severity.ERROR, "Nothing enforces this kind of policy")
SELECTS_NOTHING = Check("KW003", Severity.WARNING, "The policy selects no pod")
PEER_SELECTS_NOTHING = Check("KW004", Severity.WARNING, "A peer selects nothing")
NO_DNS = Check("KW005", Severity.WARNING, "Egress is isolated and DNS is not allowed")
OR_FOR_AND = Check("KW006", Severity.NOTE, "Two peers where one with both selectors may be meant")
NO_SUCH_PORT = Check("KW007", Severity.WARNING, "No container has the port")
NO_SUCH_NAME = Check("KW008", Severity.WARNING, "No container has a port of this name")
BLOCK_OVER_PODS = Check("KW009", Severity.WARNING, "A block covers addresses of pods or Services")
NAME_LABEL = Check(
    "KW010",
    Severity.WARNING,
    "A namespace is selected by a label `name` that nothing sets",
    f"{_DOCS}#targeting-a-namespace-by-its-name",
)
TYPE_WITHOUT_EFFECT = Check("KW011", Severity.WARNING, "Rules of a direction that has no effect")
HOST_NETWORK = Check("KW012", Severity.WARNING, "The policy selects only pods with hostNetwork")
NOTHING_ALLOWED = Check("KW013", Severity.WARNING, "An empty list of rules allows nothing")
TYPE_WITHOUT_RULES = Check("KW014", Severity.NOTE, "A direction without rules is denied altogether")
DEFINED_TWICE = Check("KW015", Severity.WARNING, "The object is defined twice")
DUPLICATE = Check("KW016", Severity.NOTE, "Two policies say the same")
SHADOWED = Check(
    "KW017",
    Severity.WARNING,
    "A rule is never reached",
    "https://docs.tigera.io/calico/latest/reference/resources/networkpolicy#rule",
)
EXCEPT_OUTSIDE = Check("KW018", Severity.ERROR, "An exception is not a part of its block")

CHECKS = (
    INVALID,
    NOT_ENFORCED,
    SELECTS_NOTHING,
    PEER_SELECTS_NOTHING,
    NO_DNS,
    OR_FOR_AND,
    NO_SUCH_PORT,
    NO_SUCH_NAME,
    BLOCK_OVER_PODS,
    NAME_LABEL,
    TYPE_WITHOUT_EFFECT,
    HOST_NETWORK,
    NOTHING_ALLOWED,
    TYPE_WITHOUT_RULES,
    DEFINED_TWICE,
    DUPLICATE,
    SHADOWED,
    EXCEPT_OUTSIDE,
)
