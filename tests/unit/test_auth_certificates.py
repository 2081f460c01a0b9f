"""Names of certificates, and the files that TLS is served with."""

from __future__ import annotations

from pathlib import Path

import pytest
from auth_support import refused
from pki import Authority, write_keys
from structlog.testing import capture_logs

from rtpfanout.auth import Access, Caller, Identity, Keys, Role, certificate_roles
from rtpfanout.errors import ConfigError
from rtpfanout.service.tls import Files


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access(keys=Keys(Path(write_keys(tmp_path / "keys"))))


def test_a_certificate_in_place_of_a_token_is_not_more_than_it_says(tmp_path: Path) -> None:
    from rtpfanout.config import Settings

    tls = {"certificate": "c", "key": "k", "client_ca": "ca"}
    auth = {"jwt_keys": write_keys(tmp_path / "keys")}
    both = Access.of(Settings(tls=tls, auth=auth))  # type: ignore[arg-type]
    assert refused(both, Caller("ipv4:1.2.3.4:5", "", ("wall-2",))) == "missing"
    only = Access.of(Settings(tls=tls))  # type: ignore[arg-type]
    assert only.identify(Caller("ipv4:1.2.3.4:5", "", ("wall-2",))).role is Role.ADMIN
    assert refused(only, Caller("ipv4:1.2.3.4:5")) == "missing", "no certificate at all"


def test_names_of_certificates() -> None:
    roles = certificate_roles(
        ["Wall Display 2 viewer site=north a=b", "a=b operator", "* subscriber", "b admin"]
    )
    access = Access(certificates=roles)

    def of(*names: str) -> Identity:
        return access.identify(Caller("ipv4:1.2.3.4:5", "", names))

    assert of("Wall Display 2") == Identity(
        "Wall Display 2", Role.VIEWER, (("a", "b"), ("site", "north"))
    )
    assert of("a=b").role is Role.OPERATOR
    assert of().role is of("*").role is of("strange").role is Role.SUBSCRIBER
    assert of("strange", "b") == Identity("strange", Role.ADMIN), "listed goes before *"
    assert of("Wall Display 2", "b").role is Role.VIEWER, "the first that is listed counts"
    assert of("wall display 2").role is Role.SUBSCRIBER


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "viewer",
        "a",
        "a Viewer",
        "a viewer site=",
        "a viewer =x",
        "a viewer site=n,vehicle=x",
        "a viewer site=n site=m",
        "a site=n viewer x",
        "site=n",
    ],
)
def test_entries_that_are_none(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        certificate_roles([entry])
    assert caught.value.field == "auth.certificate_roles"


def test_a_name_is_there_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        certificate_roles(["a viewer", "a admin"])


def test_certificates_change_half_written_and_vanish(tmp_path: Path) -> None:
    authority = Authority()
    paths = [tmp_path / name for name in ("cert", "key", "ca")]
    new = [*authority.issue("new"), authority.pem]
    for path, data in zip(paths, [*authority.issue("old"), authority.pem], strict=True):
        path.write_bytes(data)
    files = Files(*map(str, paths))
    files.read()
    assert files.read_if_changed() is None
    with capture_logs() as log:
        for index, data in ((0, new[0]), (1, new[1][:60])):
            paths[index].write_bytes(data)
            assert files.read_if_changed() is None
            assert files.read_if_changed() is None, "told once"
        paths[1].unlink()
        assert files.read_if_changed() is None
        paths[1].write_bytes(new[1])
        assert files.read_if_changed() is not None
    events = [entry["event"] for entry in log]
    assert events == ["certificates not reloaded"] * 3 + ["certificates reloaded"]
    assert files.read_if_changed() is None


@pytest.mark.parametrize("field", ["certificate", "key", "client_ca"])
def test_files_of_tls_that_are_none(tmp_path: Path, field: str) -> None:
    authority = Authority()
    certificate, key = authority.issue("x")
    contents = {"certificate": certificate, "key": key, "client_ca": authority.pem}
    for bad in (b"", b"nonsense", authority.issue("other")[1]):
        for name, data in (contents | {field: bad}).items():
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            Files(*(str(tmp_path / name) for name in contents)).read()
        assert caught.value.field == f"tls.{field}"
    (tmp_path / field).unlink()
    with pytest.raises(ConfigError, match="No such file"):
        Files(*(str(tmp_path / name) for name in contents)).read()
