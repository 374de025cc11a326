"""Elements of the shared sets and maps, and whose they are: ports of one Service have its ClusterIP
in common, and two Services may by mistake want one address and port."""

from __future__ import annotations

from collections.abc import Iterable

from kubewire.components.kube_proxy.nftables.statements import Element
from kubewire.components.kube_proxy.state.model import ServicePortName

_Place = tuple[str, tuple[str, ...]]
_Claims = tuple[tuple[ServicePortName, Element], ...]


class Elements:
    """replace() what Services have, then take the difference() to the last time."""

    def __init__(self) -> None:
        #: In the order of the owners' names; the first one's element is the one that is there.
        self._claims: dict[_Place, _Claims] = {}
        self._before: dict[_Place, Element | None] = {}

    def replace(
        self, owner: ServicePortName, old: Iterable[Element], new: Iterable[Element]
    ) -> None:
        before, after = (
            {_place(element): element for element in old},
            {_place(element): element for element in new},
        )
        for place in before.keys() - after.keys():
            self._claim(place, owner, None)
        for place, element in after.items():
            if before.get(place) != element:
                self._claim(place, owner, element)

    def difference(self) -> tuple[list[Element], list[Element]]:
        """What to delete and what to add then; an element with another verdict or comment is in
        both."""
        deleted, added = [], []
        for place in sorted(self._before):
            before, after = self._before[place], self._first(place)
            if before != after:
                deleted += [before] if before else []
                added += [after] if after else []
        self._before = {}
        return deleted, added

    def _claim(self, place: _Place, owner: ServicePortName, element: Element | None) -> None:
        self._before.setdefault(place, self._first(place))
        claims = [claim for claim in self._claims.get(place, ()) if claim[0] != owner]
        if element:
            claims.append((owner, element))
        if claims:
            self._claims[place] = (
                tuple(sorted(claims, key=_owner)) if len(claims) > 1 else tuple(claims)
            )
        else:
            del self._claims[place]

    def _first(self, place: _Place) -> Element | None:
        claims = self._claims.get(place)
        return claims[0][1] if claims else None


def _place(element: Element) -> _Place:
    return element.container, element.key


def _owner(claim: tuple[ServicePortName, Element]) -> ServicePortName:
    return claim[0]
