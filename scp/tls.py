"""TLS for the receiver, by the secure transport profile of PS3.15 B.12 (BCP 195).

TLS 1.2 or newer, with forward secrecy.
"""

import ssl
from pathlib import Path

from lumbar.errors import WrongSetting

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL"  # of TLS 1.2; all of 1.3 qualify


def server_context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """The receiver's TLS context.

    With ``client_ca``, clients must present a certificate of that authority.

    Raises:
        WrongSetting: A file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise WrongSetting(
            f"LUMBAR_TLS_CERTIFICATE, LUMBAR_TLS_KEY: {certificate} and {key} are not a PEM "
            f"certificate and its key ({_reason(error)})"
        ) from error
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise WrongSetting(
                f"LUMBAR_TLS_CLIENT_CA: {client_ca} is not a PEM certificate ({_reason(error)})"
            ) from error
    return context


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
