"""TLS for the receiver, by the secure transport profile of PS3.15 B.12 (BCP 195): 1.2 or newer, forward secrecy."""

import ssl
from pathlib import Path

from lumbar.errors import WrongSetting

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL"  # of TLS 1.2; those of 1.3 are all good


def server_context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """What the receiver speaks; with ``client_ca``, only to clients that show a certificate of that authority.

    Raises:
        WrongSetting: a file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise WrongSetting(
            f"LUMBAR_TLS_CERTIFICATE, LUMBAR_TLS_KEY: {certificate} and {key} are no PEM certificate and its key "
            f"({_reason(error)})"
        ) from error
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise WrongSetting(
                f"LUMBAR_TLS_CLIENT_CA: {client_ca} is no PEM certificate ({_reason(error)})"
            ) from error
    return context


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
