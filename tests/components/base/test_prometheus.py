"""The text format 0.0.4 as Prometheus reads it."""

from __future__ import annotations

import pytest

from kubewire.components.base.prometheus import Registry, exponential_buckets


def test_metrics_stand_in_the_order_of_their_names_with_help_and_type() -> None:
    registry = Registry()
    registry.gauge("z_last", "Later.").set(2.5)
    registry.counter("a_first_total", "First.").inc()
    assert registry.text() == (
        "# HELP a_first_total First.\n# TYPE a_first_total counter\na_first_total 1\n"
        "# HELP z_last Later.\n# TYPE z_last gauge\nz_last 2.5\n"
    )


def test_label_values_are_escaped() -> None:
    registry = Registry()
    registry.counter("c", "C.", "path").inc('a"b\\c\nd')
    assert 'c{path="a\\"b\\\\c\\nd"} 1\n' in registry.text()


def test_a_labelled_metric_shows_only_what_was_counted_and_a_plain_one_always() -> None:
    registry = Registry()
    registry.counter("labelled", "L.", "code")
    registry.counter("plain", "P.")
    samples = [line for line in registry.text().splitlines() if not line.startswith("#")]
    assert samples == ["plain 0"]


def test_a_histograms_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    registry = Registry()
    seconds = registry.histogram("s", "S.", buckets=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 3.0):
        seconds.observe(value)
    samples = [line for line in registry.text().splitlines() if not line.startswith("#")]
    assert samples == ['s_bucket{le="0.1"} 2', 's_bucket{le="1"} 3', 's_bucket{le="+Inf"} 4', "s_sum 3.65", "s_count 4"]


def test_one_name_is_one_metric_and_never_two_kinds() -> None:
    registry = Registry()
    assert registry.counter("c", "C.", "zone") is registry.counter("c", "C.", "zone")
    with pytest.raises(ValueError, match="c is registered with another type or other labels"):
        registry.gauge("c", "C.", "zone")
    with pytest.raises(ValueError, match="c is registered with another type or other labels"):
        registry.counter("c", "C.", "server")


def test_exponential_buckets_multiply() -> None:
    assert exponential_buckets(0.001, 2, 4) == (0.001, 0.002, 0.004, 0.008)


def test_labels_stand_in_the_order_of_their_names_and_le_last() -> None:
    registry = Registry()
    registry.histogram("s", "S.", "table", "ip_family", buckets=(1.0,)).observe(2.0, "nat", "IPv4")
    assert 's_bucket{ip_family="IPv4",table="nat",le="1"} 0' in registry.text()
