"""ReplicationControllers and CronJobs: what is refused."""

from __future__ import annotations

from typing import Any

import pytest

TEMPLATE: Any = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
JOB: Any = {"spec": {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}}


def cronjob(**spec: Any) -> Any:
    return {"spec": {"schedule": "* * * * *", "jobTemplate": JOB, **spec}}


@pytest.mark.parametrize(
    ("kind", "obj", "expected"),
    [
        ("ReplicationController", {"spec": {"template": TEMPLATE}}, []),
        ("ReplicationController", {"spec": {}}, ["spec.selector: Required value", "spec.template: Required value"]),
        (
            "ReplicationController",
            {"spec": {"replicas": -1, "selector": {"app": "b"}, "template": TEMPLATE}},
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                'spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`',
            ],
        ),
        ("CronJob", cronjob(), []),
        (
            "CronJob",
            cronjob(schedule="* * * *"),
            ['spec.schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]'],
        ),
        (
            "CronJob",
            cronjob(schedule="TZ=UTC 0 * * * *"),
            [
                'spec.schedule: Invalid value: "TZ=UTC 0 * * * *": '
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            ],
        ),
        ("CronJob", cronjob(timeZone="Europe/Berlin"), []),
        (
            "CronJob",
            cronjob(timeZone="Moon/Base"),
            ['spec.timeZone: Invalid value: "Moon/Base": unknown time zone Moon/Base'],
        ),
        (
            "CronJob",
            {"metadata": {"name": "x" * 53}, **cronjob()},
            [f'metadata.name: Invalid value: "{"x" * 53}": must be no more than 52 characters'],
        ),
    ],
)
def test_what_is_refused(complaints: Any, kind: str, obj: Any, expected: list[str]) -> None:
    assert complaints(kind, obj) == expected
