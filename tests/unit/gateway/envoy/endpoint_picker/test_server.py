"""The certificate that the endpoint picker makes for itself."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from autoglm.gateway.envoy.endpoint_picker.server import self_signed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_it_holds_for_years_and_from_before_now() -> None:
    certificate = x509.load_pem_x509_certificate(self_signed("picker", NOW)[1])
    assert certificate.not_valid_before_utc < NOW
    assert certificate.not_valid_after_utc > NOW + timedelta(days=365)
    assert certificate.issuer == certificate.subject


def test_key_and_certificate_belong_together(tmp_path: Path) -> None:
    key, certificate = self_signed("picker", NOW)
    (tmp_path / "both.pem").write_bytes(key + certificate)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "both.pem")


def test_every_start_makes_another() -> None:
    assert self_signed("picker", NOW) != self_signed("picker", NOW)
