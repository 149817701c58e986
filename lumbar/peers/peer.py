"""A destination, as the rest of the program uses it."""

from dataclasses import asdict
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from lumbar import errors
from lumbar.closing import Closing
from lumbar.log import get_logger
from lumbar.peers import outcomes
from lumbar.peers.deadline import Unfinished
from lumbar.peers.destinations import Destination
from lumbar.peers.outcomes import HeldReport, InstanceReference, Sent, Unreachable
from lumbar.sandbox import ChildProcess, ChildProcessDied

GRACE_S = 1  # beyond the operation's time, so that the child can end it itself
MAX_RESULT = 2**24  # bytes

# By which its libraries find authorities, and `?proxy=environment` proxies and .netrc.
_ENVIRONMENT = (
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HOME", "NETRC", "RES_OPTIONS", "LOCALDOMAIN"),
)

log = get_logger()


class Peer(Closing):
    """A destination, reached through a child process that is killed at a deadline.

    Whatever the peer does, an operation ends within ``limit_s`` and about a second, with an outcome
    or a ``LumbarError``; ``timeout_s`` limits each wait for the peer within it. There is one
    operation at a time. The child lives until ``close``, which also ends an operation that another
    thread has begun.

    Every operation raises ``Unreachable`` where there is no connection, or no response in time, and
    the other errors of ``lumbar.peers.outcomes`` as stated there.
    """

    def __init__(
        self, destination: Destination, *, timeout_s: float = 30, limit_s: float = 120
    ) -> None:
        self.destination = destination
        self.timeout_s = timeout_s
        self.limit_s = limit_s
        self._child = ChildProcess(
            "lumbar.peers.child", _ENVIRONMENT, seconds=ceil(limit_s), max_line=MAX_RESULT
        )

    def send(self, file: Path, *, not_after: float | None = None) -> Sent:
        """Sends one Part-10 file, by C-STORE or STOW-RS.

        ``not_after``: the ``time.monotonic()`` after which nothing may be sent any more.

        Raises:
            NotSent: sending it again may succeed; ``holds_destination`` says whether it concerns
                every file. ``TooLate``: ``not_after`` has passed.
            Refused: the peer does not accept this instance.
            Permanent: the file is not DICOM.
        """
        sent = self._request("send", file=str(file.absolute()), not_after=not_after)
        return Sent(**sent)

    def holds(self, reference: InstanceReference) -> bool | None:
        """Whether the peer lists the instance, by C-FIND or QIDO-RS; None: it cannot be asked."""
        held: bool | None = self._request("holds", reference=asdict(reference))
        return held

    def our_reports(self, study_instance_uid: str) -> tuple[HeldReport, ...] | None:
        """The reports of this product that the peer lists in the study, by instance number.

        None: it cannot be asked, or does not say who made a report. See
        ``lumbar.peers.asking`` for what counts as ours.
        """
        reports = self._request("our_reports", study_instance_uid=study_instance_uid)
        if reports is None:
            return None
        return tuple(HeldReport(**report) for report in reports)

    def test(self) -> None:
        """Tests whether the destination answers: by C-ECHO, or by a query for one study.

        Raises:
            Refused: the peer does not offer verification, or the URL is not a DICOMweb root.
        """
        self._request("test")

    def answers_queries(self) -> bool:
        """Whether the peer can be asked what it holds; see ``holds``."""
        answers: bool = self._request("answers_queries")
        return answers

    def close(self) -> None:
        """Ends the child process."""
        self._child.close()

    def _request(self, operation: str, **arguments: Any) -> Any:
        """What the operation returns in the child process.

        Raises:
            Unfinished: the process did not finish in time.
            Unreachable: it ended.
            LumbarError: as it was raised there.
        """
        name = self.destination.name
        until = monotonic() + self.limit_s
        request = {
            "operation": operation,
            "arguments": arguments,
            "kind": type(self.destination).__name__,
            "destination": asdict(self.destination),
            "timeout_s": self.timeout_s,
            "limit_s": self.limit_s,
            "until": until,
        }
        try:
            response, _ = self._child.request(request, until=until + GRACE_S)
        except OSError:
            raise Unreachable(
                f"the process that talks to {name} could not be started; "
                "check this machine's memory and processes"
            ) from None
        except ChildProcessDied:
            if monotonic() >= until:
                raise Unfinished(name, self.limit_s) from None
            raise Unreachable(
                f"the process that talks to {name} ended; what the peer sent may be too much for it"
            ) from None
        if fault := response.get("fault"):
            log.error("peer.fault", destination=name, operation=operation, fault=fault)
        if error := response.get("error"):
            _raise(error, response["message"])
        return response["result"]


def _raise(name: str, message: str) -> NoReturn:
    """Raises the error of that name, as it was raised in the child process."""
    kind = getattr(outcomes, name, None) or getattr(errors, name)
    raise kind(message)
