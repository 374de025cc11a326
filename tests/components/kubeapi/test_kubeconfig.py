"""kubeconfig files: what is written is read, what is wrong is named."""

from pathlib import Path

import pytest

from kubewire.components.kubeapi.kubeconfig import Credentials, KubeconfigError, dump, load

_HEAD = "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"


def test_what_is_dumped_is_loaded(tmp_path: Path) -> None:
    credentials = Credentials("https://127.0.0.1:6443", ca=b"CA", certificate=b"CERT", key=b"KEY", token="T")
    path = tmp_path / "config"
    path.write_text(dump("lab", credentials, "admin"))
    assert load(path) == credentials


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "not a kubeconfig"),
        ("current-context: x\ncontexts: []", "context 'x' is not among its contexts"),
        ("{", r"config:\d: not YAML"),
        ("a: &a [*a]", "config:1: the alias [*]a contains itself"),
        ("[" * 10_000, "config:1: nested deeper than the 100 levels that are allowed"),
        ("contexts: 1", "config: contexts: must be a list, is int"),
        ("contexts: [1]", r"config: contexts\[0\]: must be a mapping, is int"),
        ("current-context: [x]", "config.current-context: must be a string, is list"),
        (f"{_HEAD}clusters: [{{name: c, cluster: {{server: 1}}}}]", r"clusters\[0\].cluster.server: must be a string"),
        (f"{_HEAD}clusters: [{{name: c, cluster: {{}}}}]", r"clusters\[0\].cluster.server: missing, a URL"),
        (
            f"{_HEAD}clusters: [{{name: c, cluster: {{server: s, certificate-authority-data: a}}}}]",
            r"clusters\[0\].cluster.certificate-authority: .*base64",
        ),
        (
            f"{_HEAD}clusters: [{{name: c, cluster: {{server: s, certificate-authority: nothing}}}}]",
            r"clusters\[0\].cluster.certificate-authority: .*No such file",
        ),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeconfigError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_token_file_is_read_again_each_time(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    credentials = Credentials("https://x", token_file=str(token))
    assert credentials.bearer_token() == "first"
    token.write_text("second\n")
    assert credentials.bearer_token() == "second"
