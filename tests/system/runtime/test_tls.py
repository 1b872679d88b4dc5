"""HTTPS with a certificate of the operator."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import signal
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ecomcharge.shops.keys import MasterKey
from support.certificates import certificate_for
from support.operations import JOHN, auth
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop
from support.waiting import eventually


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


class TlsServer(ServerProcess):
    trust: ssl.SSLContext

    def answers(self) -> bool:
        self.url = self.url.replace("http://", "https://")
        try:
            return httpx.get(f"{self.url}/healthz", verify=self.trust).status_code == 200
        except httpx.TransportError:
            return False


def test_with_a_certificate_and_its_key_the_server_uses_https(
    certificate: tuple[Path, Path], tmp_path: Path, master_key: MasterKey
) -> None:
    certificate_file, key_file = certificate
    options = ("--tls-certificate", str(certificate_file), "--tls-key", str(key_file))
    server = TlsServer(f"sqlite:///{tmp_path}/test.db", tmp_path, *options, environment=ENVIRONMENT)
    server.trust = ssl.create_default_context(cafile=str(certificate_file))
    with server as process:
        shop = add_shop(process.database, master_key)
        created = httpx.post(f"{process.url}/customers", json=JOHN, auth=auth(shop), verify=server.trust)
        with socket.create_connection(("127.0.0.1", process.port)) as plain:
            plain.settimeout(5)
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not plain.recv(1000).startswith(b"HTTP/1.1 200")
        old = ssl.create_default_context(cafile=str(certificate_file))
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{process.url}/healthz", verify=old)

    assert created.status_code == 201


def test_after_sighup_a_renewed_certificate_is_used_unless_it_does_not_fit_its_key(tmp_path: Path) -> None:
    """As certbot and Kubernetes renew: the names of the options stay, and a link leads to the new files."""
    contexts = {}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        certificate_file, _ = certificate_for("localhost", tmp_path / name)
        contexts[name] = ssl.create_default_context(cafile=str(certificate_file))
    live = tmp_path / "live"
    live.symlink_to("old")
    options = ("--tls-certificate", str(live / "certificate.pem"), "--tls-key", str(live / "key.pem"), "--workers", "2")
    server = TlsServer(f"sqlite:///{tmp_path}/test.db", tmp_path, *options, environment=ENVIRONMENT)
    server.url, server.trust = server.url.replace("127.0.0.1", "localhost"), contexts["old"]

    def served() -> str:
        """The certificate that a new connection gets."""
        for name, context in contexts.items():
            with contextlib.suppress(httpx.ConnectError):
                httpx.get(f"{server.url}/healthz", verify=context)
                return name
        return ""

    with server as process:
        assert served() == "old"
        old_pids = set(process.worker_pids())
        renewed = tmp_path / "renewed"
        renewed.symlink_to("new")
        renewed.replace(live)
        assert process.process is not None
        process.process.send_signal(signal.SIGHUP)
        eventually(lambda: not old_pids & set(process.worker_pids()))
        assert {served() for _ in range(20)} == {"new"}

        (live / "key.pem").write_bytes((tmp_path / "old" / "key.pem").read_bytes())
        process.process.send_signal(signal.SIGHUP)
        eventually(lambda: process.log().count("a new server process cannot start, and the old one stays") == 2)
        assert {served() for _ in range(20)} == {"new"}
        assert process.stop() == 0
