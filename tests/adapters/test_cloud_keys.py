"""Keys of Google Cloud KMS and of Azure Key Vault, by the vendors' own clients, over TLS on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.signer.bundle import attest
from adapters.signer.folder import KeyFolder
from adapters.signer.statement import statement
from headway.errors import HeadwayError
from tests.adapters.cloud_doubles import AZURE, GOOGLE, GOOGLE_KEY, LOGIN, SECRET, Clouds, serving
from tests.adapters.test_bundle_foreign import packages
from tests.adapters.test_ledger_foreign import cosign, enter, with_cosign, with_node
from tests.adapters.test_remote_keys import FACTS, NOW, signed_and_believed

__all__ = ["cosign", "packages"]
# The vendors' clients warn of what is theirs to change, and leave connections to the collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAMES = ("google", "azure")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clouds, str]]:
    clouds = Clouds(tmp_path_factory.mktemp("clouds"))
    with serving(clouds) as address:
        yield clouds, address


@pytest.fixture
def clouds(made: tuple[Clouds, str], monkeypatch: pytest.MonkeyPatch) -> Clouds:
    double, address = made
    double.private, double.refuses = ec.generate_private_key(ec.SECP256R1()), None
    double.asked.clear()
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, address)
    for name in ("NO_PROXY", "no_proxy", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(double.certificate))
    return double


def uri_of(clouds: Clouds, name: str) -> str:
    return clouds.google if name == "google" else clouds.azure


@pytest.mark.parametrize("name", NAMES)
def test_a_key_of_a_cloud(clouds: Clouds, name: str, tmp_path: Path) -> None:
    signed_and_believed(tmp_path / "keys", uri_of(clouds, name))
    hosts = {GOOGLE} if name == "google" else {AZURE, LOGIN}
    assert {host for host, _, _ in clouds.asked} == hosts
    for path in (tmp_path / "keys").iterdir():
        assert SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_stock_cosign_believes_what_it_signed(clouds: Clouds, name: str, tmp_path: Path, cosign: Path) -> None:
    KeyFolder(tmp_path / "keys").rotate(NOW, remote=uri_of(clouds, name))
    enter(tmp_path, KeyFolder(tmp_path / "keys").current())
    done = with_cosign(cosign, tmp_path, tmp_path / "bundle.json")
    assert (done.returncode, "Verified OK" in done.stdout + done.stderr) == (0, True), done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_sigstores_packages_for_node_believe_it(clouds: Clouds, name: str, tmp_path: Path, packages: Path) -> None:
    KeyFolder(tmp_path / "keys").rotate(NOW, remote=uri_of(clouds, name))
    enter(tmp_path, KeyFolder(tmp_path / "keys").current())
    done = with_node(packages, tmp_path, tmp_path / "bundle.json")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_who_refuses_is_named_with_the_reason_and_no_secret(clouds: Clouds, name: str, tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    keys.rotate(NOW, remote=uri_of(clouds, name))
    clouds.refuses = 403
    with pytest.raises(HeadwayError) as failed:
        attest(statement(FACTS), KeyFolder(tmp_path / "keys").current())
    assert (failed.value.code, failed.value.message) == ("sign.failed", "The signer failed: it answered 403.")
    clouds.refuses = None
    assert attest(statement(FACTS), KeyFolder(tmp_path / "keys").current())


def refused(folder: Path, uri: str) -> str:
    keys = KeyFolder(folder)
    first = keys.current().hint
    with pytest.raises(HeadwayError) as raised:
        keys.rotate(NOW, remote=uri)
    assert raised.value.code == "request.invalid_parameter"
    assert KeyFolder(folder).current().hint == first
    assert SECRET not in raised.value.message
    return raised.value.message


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_key_there(clouds: Clouds, name: str, tmp_path: Path) -> None:
    uri = uri_of(clouds, name)
    assert "it answered 404" in refused(tmp_path, uri.replace("deploy", "other", 1))
    assert "with its version" in refused(tmp_path, f"{uri.partition('deploy')[0]}deploy")
    assert "no option" in refused(tmp_path, f"{uri}&password=x")
    clouds.private = ec.generate_private_key(ec.SECP384R1())
    assert "P-256" in refused(tmp_path, uri)


def test_a_service_that_cannot_be_reached_and_files_that_are_not_there(clouds: Clouds, tmp_path: Path) -> None:
    gone = clouds.google.replace("google.json", "gone.json")
    assert "credentials are missing" in refused(tmp_path, gone)
    assert "there is no file" in refused(tmp_path, clouds.azure.replace("azure.secret", "gone"))
    clouds.folder.joinpath("wrong").write_text("another word")
    assert "or were refused" in refused(tmp_path, clouds.azure.replace("azure.secret", "wrong"))


@pytest.mark.parametrize(("name", "module"), [("google", "google.cloud"), ("azure", "azure.keyvault.keys")])
def test_without_the_vendors_client(
    clouds: Clouds, name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in [one for one in sys.modules if one == module or one.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, module, None)
    said = refused(tmp_path, uri_of(clouds, name))
    assert "its client is not installed" in said
    assert "securesystemslib[" in said


def test_the_name_of_a_key_is_whole(tmp_path: Path) -> None:
    for uri in (
        f"gcpkms:{GOOGLE_KEY}/more",
        "gcpkms:deploy",
        "azurekms:deploy",
        f"azurekms://{AZURE}/keys/deploy/latest",
        "azurekms://x@y/keys/a/b",
    ):
        assert "with its version" in refused(tmp_path, uri)
