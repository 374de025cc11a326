"""CEL with Kubernetes' libraries."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.apiserver.cel.authorization import VARIABLES as AUTHORIZER_VARIABLES
from kubewire.components.apiserver.cel.authorization import Asker, Question
from kubewire.components.apiserver.cel.engine import CompileError, Environment, EvaluationError
from kubewire.components.apiserver.users import User

VALUES: dict[str, Any] = {
    'quantity("1k") == quantity("1000")': True,
    'quantity("1.5Gi").isGreaterThan(quantity("1G"))': True,
    'quantity("1").isLessThan(quantity("1100m"))': True,
    'quantity("1").compareTo(quantity("2"))': -1,
    'quantity("50k").add(20).sub(quantity("20")).asInteger()': 50000,
    'quantity("100m").isInteger()': False,
    'isQuantity("x")': False,
    'ip("10.0.0.1").family()': 4,
    'ip("fe80::1").isLinkLocalUnicast()': True,
    'ip("10.0.0.1").isGlobalUnicast()': True,
    'ip("224.0.0.1").isLinkLocalMulticast()': True,
    'string(ip("2001:DB8::0:1"))': "2001:db8::1",
    'ip.isCanonical("2001:db8::0:1")': False,
    'isIP("::ffff:1.2.3.4")': False,
    'cidr("10.0.0.0/8").containsIP("10.1.1.1")': True,
    'cidr("10.0.0.0/8").containsIP(ip("11.1.1.1"))': False,
    'cidr("10.0.0.0/8").containsCIDR("10.1.0.0/16")': True,
    'cidr("10.0.0.1/8").masked() == cidr("10.0.0.0/8")': True,
    'cidr("10.0.0.1/8").prefixLength()': 8,
    'isCIDR("10.0.0.0/33")': False,
    'url("https://u@a.b:80/c?d=e").getHost()': "a.b:80",
    'url("https://[::1]:80/c").getHostname()': "::1",
    'url("https://a.b:80/c?d=e").getPort()': "80",
    'url("https://a.b/c?d=e&d=f").getQuery()["d"]': ["e", "f"],
    'url("/c").getEscapedPath()': "/c",
    'isURL("../x")': False,
    'semver("1.2.3").isLessThan(semver("1.10.0"))': True,
    'semver("1.2.3-alpha").isLessThan(semver("1.2.3"))': True,
    'semver("v1.2", true).minor()': 2,
    'isSemver("1.2")': False,
    "[1, 2].sum()": 3,
    "[3, 1].min()": 1,
    "['b', 'a'].max()": "b",
    "[1, 3, 2].isSorted()": False,
    "['a', 'b', 'a'].lastIndexOf('a')": 2,
    '"abc 123".find("[0-9]+")': "123",
    '"1 2 3".findAll("[0-9]", 2)': ["1", "2"],
    '"1 2 3".findAll("[0-9]")': ["1", "2", "3"],
    "'%s is %d'.format(['a', 1])": "a is 1",
    "'a,b'.split(',')": ["a", "b"],
    '!format.dns1123Label().validate("my-label-name").hasValue()': True,
    '!format.dns1123Subdomain().validate("apiextensions.k8s.io").hasValue()': True,
    '!format.dns1035Label().validate("my-label-name").hasValue()': True,
    'format.dns1035Label().validate("1a").hasValue()': True,
    '!format.qualifiedName().validate("apiextensions.k8s.io/v1beta1").hasValue()': True,
    '!format.dns1123LabelPrefix().validate("my-label-prefix-").hasValue()': True,
    'format.dns1123Label().validate("my-label-prefix-").hasValue()': True,
    '!format.dns1123SubdomainPrefix().validate("mysubdomain.prefix.-").hasValue()': True,
    '!format.dns1035LabelPrefix().validate("my-label-prefix-").hasValue()': True,
    '!format.labelValue().validate("").hasValue()': True,
    '!format.uri().validate("http://example.com").hasValue()': True,
    'format.uri().validate("example.com").value()': ['parse "example.com": invalid URI for request'],
    '!format.uuid().validate("123e4567-e89b-12d3-a456-426614174000").hasValue()': True,
    'format.uuid().validate("x").value()': ["does not match the UUID format"],
    '!format.byte().validate("aGVsbG8=").hasValue()': True,
    'format.byte().validate("a").value()': ["invalid base64"],
    '!format.date().validate("2021-01-01").hasValue()': True,
    'format.date().validate("2021-13-01").value()': ["invalid date"],
    '!format.datetime().validate("2021-01-01T00:00:00Z").hasValue()': True,
    'format.datetime().validate("2021-01-01").value()': ["invalid datetime"],
    'format.named("dns1123Label").value().validate("A").hasValue()': True,
    'format.named("nothing").hasValue()': False,
    'format.named("uuid").value().validate("x").value().join(" ")': "does not match the UUID format",
    "optional.of(1).hasValue() && optional.of(1).value() == 1 && optional.none().orValue(2) == 2": True,
    "lists.range(3)": [0, 1, 2],
    "[1, 2, 3].slice(0, 2)": [1, 2],
    "[[1], [2, 3]].flatten()": [1, 2, 3],
    "[1, 1, 2].distinct()": [1, 2],
    "[{'a': 2}, {'a': 1}].sortBy(e, e.a)[0].a": 1,
    "[1, 2].first().value()": 1,
    "[1, 2].last().orValue(0)": 2,
    "strings.quote('a')": '"a"',
    "' aBc '.trim().lowerAscii().replace('b', 'x')": "axc",
    "['a', 'b'].join('-')": "a-b",
    "[1, 2].transformList(i, v, i > 0, v * 2)": [4],
    "[1, 2].existsOne(i, v, v == 1)": True,
    "optional.of(1).optMap(x, x + 1).value()": 2,
    "optional.ofNonZeroValue('').hasValue()": False,
    "[?optional.none(), 1]": [1],
    "cel.bind(x, 1, x + x)": 2,
    "jsonpatch.escapeKey('k8s.io/my~label')": "k8s.io~1my~0label",
    "[duration('1s'), duration('2s')].sum() == duration('3s')": True,
    "[duration('1s'), duration('2s')].max() == duration('2s')": True,
    "[timestamp('2021-01-01T00:00:00Z'), timestamp('2020-01-01T00:00:00Z')].min().getFullYear()": 2020,
    "sets.contains([1, 2], [1])": True,
    "sets.equivalent([1, 2], [2, 1])": True,
    "sets.intersects([1], [2])": False,
    "[1, 2].all(i, v, i < v)": True,
    "{'a': 1}.exists(k, v, v == 1)": True,
    "self.?a.orValue(7)": 7,
    "dyn(1) < 1.5": True,
    "timestamp('2020-01-01T00:00:00Z') + duration('1h') > timestamp('2020-01-01T00:30:00Z')": True,
}  # fmt: skip


@pytest.mark.parametrize("expression", VALUES)
def test_the_value_of(expression: str) -> None:
    assert Environment({"self": "dyn"}).compile(expression).evaluate({"self": {}}) == VALUES[expression]


FAILURES = {
    "self.a": "no such key: a",
    "[1][3]": "index out of bounds: 3",
    "1 / 0": "division by zero",
    "9223372036854775807 + 1": "integer overflow",
    "self.startsWith('a')": "no such overload",
    "[].max()": "max called on empty list",
    'format.uuid().validate("123e4567-e89b-12d3-a456-426614174000").value()': "optional.none() dereference",
    'ip("x")': 'IP Address "x" parse error during conversion from string: ParseAddr("x"): unable to parse IP',
}  # fmt: skip


@pytest.mark.parametrize("expression", FAILURES)
def test_the_failure_of(expression: str) -> None:
    with pytest.raises(EvaluationError) as error:
        Environment({"self": "dyn"}).compile(expression).evaluate({"self": {}})
    assert str(error.value) == FAILURES[expression]


MISTAKES = {
    "foo": "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo\n | ^",
    "'a' + 1": "ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(string, int)'\n | 'a' + 1\n | ....^",
}  # fmt: skip


@pytest.mark.parametrize("expression", MISTAKES)
def test_the_mistake_in(expression: str) -> None:
    with pytest.raises(CompileError) as error:
        Environment({"self": "dyn"}).compile(expression)
    assert str(error.value) == MISTAKES[expression]


GRANTED = {
    ("jane", "create", "apps", "deployments", "", "a", ""),
    ("jane", "get", "", "pods", "log", "a", "p"),
    ("system:serviceaccount:a:robot", "list", "", "secrets", "", "a", ""),
    ("jane", "update", "", "pods", "status", "b", "q"),
}


def _decide(asked: Question) -> tuple[bool, str]:
    if asked.path:
        return asked.path == "/healthz" and asked.verb == "get", "by path"
    if ("spec.nodeName", "n1") in asked.equals:
        return True, "its own pods"
    shape = (asked.user.name, asked.verb, asked.group, asked.resource, asked.subresource, asked.namespace, asked.name)
    return shape in GRANTED, ""


ANSWERS: dict[str, Any] = {
    "authorizer.group('apps').resource('deployments').namespace('a').check('create').allowed()": True,
    "authorizer.group('apps').resource('deployments').namespace('b').check('create').allowed()": False,
    "authorizer.group('').resource('pods').subresource('log').namespace('a').name('p').check('get').allowed()": True,
    "authorizer.serviceAccount('a', 'robot').group('').resource('secrets').namespace('a').check('list').allowed()": True,
    "authorizer.path('/healthz').check('get').allowed()": True,
    "authorizer.path('/metrics').check('get').allowed()": False,
    "authorizer.path('/healthz').check('get').reason()": "by path",
    "authorizer.path('/healthz').check('get').errored()": False,
    "authorizer.path('/healthz').check('get').error()": "",
    "authorizer.group('').resource('pods').fieldSelector('spec.nodeName=n1').check('list').allowed()": True,
    "authorizer.group('').resource('pods').labelSelector('a=b').check('list').allowed()": False,
    "authorizer.requestResource.check('update').allowed()": True,
    "authorizer.requestResource.check('delete').allowed()": False,
    "authorizer.requestResource.name('r').check('update').allowed()": False,
}


def _asked(expression: str) -> Any:
    resource = {"group": "", "resource": "pods", "subresource": "status", "namespace": "b", "name": "q"}
    asker = Asker(_decide, User("jane", ("dev",)), resource)
    return Environment(dict(AUTHORIZER_VARIABLES)).compile(expression).evaluate({"authorizer": asker})


@pytest.mark.parametrize("expression", ANSWERS)
def test_the_authorizer_answers(expression: str) -> None:
    assert _asked(expression) == ANSWERS[expression]


REFUSED = {
    "authorizer.path(' ').check('get').allowed()": "path must not be empty",
    "authorizer.group('').resource('').check('get').allowed()": "resource must not be empty",
    "authorizer.serviceAccount('a', '@').path('/x').check('get').allowed()": "Invalid service account name",
    "authorizer.serviceAccount('@', 'a').path('/x').check('get').allowed()": "Invalid service account namespace",
}


@pytest.mark.parametrize("expression", REFUSED)
def test_the_authorizer_refuses(expression: str) -> None:
    with pytest.raises(EvaluationError, match=REFUSED[expression]):
        _asked(expression)
