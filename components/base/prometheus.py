"""Metrics in the Prometheus text format 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats/).

A registry belongs to one process and is passed to the code that counts; there is no global
registry.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[str, ...]


def exponential_buckets(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Upper bounds start, start*factor, ...; count of them, without +Inf."""
    return tuple(start * factor**i for i in range(count))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.10g}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    """Labels in the order of Prometheus' Go client: by name, a histogram's le last."""
    known = sorted(zip(names, values, strict=True), key=lambda pair: (pair[0] == "le", pair[0]))
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in known)
    return f"{{{pairs}}}" if pairs else ""


class _Metric:
    kind = "untyped"

    def __init__(self, name: str, help_text: str, label_names: Labels) -> None:
        self.name = name
        self.help_text = help_text
        self.label_names = label_names
        self.values: dict[Labels, float] = {} if label_names else {(): 0.0}

    def lines(self) -> list[str]:
        return [
            f"{self.name}{_labels(self.label_names, labels)} {_number(value)}"
            for labels, value in sorted(self.values.items())
        ]


class Counter(_Metric):
    kind = "counter"

    def inc(self, *labels: str, by: float = 1.0) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + by


class Gauge(_Metric):
    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        self.values[labels] = value

    def inc(self, *labels: str, by: float = 1.0) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + by


class Histogram(_Metric):
    """Cumulative buckets with their sum and count."""

    kind = "histogram"

    def __init__(
        self, name: str, help_text: str, label_names: Labels, buckets: Sequence[float]
    ) -> None:
        super().__init__(name, help_text, label_names)
        self.buckets = tuple(buckets)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        counts = self._counts.setdefault(labels, [0] * (len(self.buckets) + 1))
        counts[bisect_left(self.buckets, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> list[str]:
        out = []
        for labels, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip([*map(_number, self.buckets), "+Inf"], counts, strict=True):
                total += count
                out.append(
                    f"{self.name}_bucket{_labels((*self.label_names, 'le'), (*labels, bound))} {total}",
                )
            rendered = _labels(self.label_names, labels)
            out.append(f"{self.name}_sum{rendered} {_number(self._sums[labels])}")
            out.append(f"{self.name}_count{rendered} {total}")
        return out


M = TypeVar("M", bound=_Metric)


class Registry:
    """The metrics of one process, shown in the order of their names."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}

    def counter(self, name: str, help_text: str, *label_names: str) -> Counter:
        return self._kept(Counter(name, help_text, label_names))

    def gauge(self, name: str, help_text: str, *label_names: str) -> Gauge:
        return self._kept(Gauge(name, help_text, label_names))

    def histogram(
        self, name: str, help_text: str, *label_names: str, buckets: Sequence[float]
    ) -> Histogram:
        return self._kept(Histogram(name, help_text, label_names, buckets))

    def _kept(self, metric: M) -> M:
        """Returns the existing metric if the name is taken: plugins in several server blocks share
        theirs."""
        kept = self._metrics.setdefault(metric.name, metric)
        if type(kept) is not type(metric) or kept.label_names != metric.label_names:
            raise ValueError(
                f"metric {metric.name} is registered with another type or other labels",
            )
        return kept

    def text(self) -> str:
        out: list[str] = []
        for name in sorted(self._metrics):
            metric = self._metrics[name]
            out += [
                f"# HELP {name} {metric.help_text}",
                f"# TYPE {name} {metric.kind}",
                *metric.lines(),
            ]
        return "\n".join(out) + "\n"
