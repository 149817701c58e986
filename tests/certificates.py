"""Certificates for tests, made by OpenSSL."""

import subprocess
from pathlib import Path


def self_signed(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for a host that nobody else has signed, valid for two days; and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-subj", f"/CN={host}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*new, *files], check=True, capture_output=True)
    return certificate, key
