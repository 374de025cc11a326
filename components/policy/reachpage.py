"""The matrix of who reaches whom as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from kubewire.components.policy import reach
from kubewire.components.policy.model import Endpoint

_STYLE = """\
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
table { border-collapse: collapse; }
th { font-weight: normal; text-align: left; padding: 2px 8px; white-space: nowrap; }
thead th { writing-mode: vertical-rl; transform: rotate(180deg); }
td { border: 1px solid #fff; width: 1.8em; height: 1.8em; text-align: center; }
.allowed { background: #b7e1c0; }
.denied { background: #f2b8b5; }
.differs { outline: 3px solid #b3261e; outline-offset: -3px; font-weight: bold; }
"""


def page(
    pods: Sequence[Endpoint],
    found: Sequence[reach.Cell],
    measured: Mapping[reach.Cell, reach.Measured],
) -> str:
    """A row for each source, a column for each destination; the reason is shown when the pointer
    rests on a cell. measured: empty if nothing was measured."""
    names = [reach.name_of(pod) for pod in pods]
    by_pair = {(cell.source, cell.destination): cell for cell in found}
    ports = {cell.destination: cell.port for cell in found}
    heads = "".join(f'<th scope="col">{escape(name)} {ports.get(name, "")}</th>' for name in names)
    rows = []
    for source in names:
        cells = (_cell(by_pair.get((source, name)), measured) for name in names)
        rows.append(f'<tr><th scope="row">{escape(source)}</th>{"".join(cells)}</tr>')
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Who reaches whom</title><style>
{_STYLE}</style></head>
<body>
<h1>Who reaches whom</h1>
<p>From the row to the column: <span class="allowed">&nbsp;.&nbsp;</span> allowed,
<span class="denied">&nbsp;X&nbsp;</span> denied.{_summary(measured)}</p>
<table>
<thead><tr><td></td>{heads}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody>
</table>
</body>
</html>
"""


def _cell(cell: reach.Cell | None, measured: Mapping[reach.Cell, reach.Measured]) -> str:
    if cell is None:
        return "<td>-</td>"
    mark, name = (".", "allowed") if cell.verdict.allowed else ("X", "denied")
    why = f"{cell.source} -> {cell.destination} {cell.port}: {cell.verdict}"
    one = measured.get(cell)
    if one is not None:
        why += f"; measured: {one.text}"
        name += "" if one.agrees else " differs"
    return f'<td class="{name}" title="{escape(why)}">{mark}</td>'


def _summary(measured: Mapping[reach.Cell, reach.Measured]) -> str:
    if not measured:
        return ""
    wrong = sum(not one.agrees for one in measured.values())
    return f" {len(measured)} connections were measured; {wrong} differ from the prediction."
