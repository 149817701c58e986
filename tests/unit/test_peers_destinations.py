"""Destinations as the settings give them."""

import pytest

from lumbar.errors import WrongSetting
from lumbar.peers import DicomwebDestination, DimseDestination, parse_destination
from lumbar.peers.destinations import Probe


@pytest.mark.parametrize(
    ("url", "destination"),
    [
        ("dicom://PACS@host:104", DimseDestination("d", "host", 104, "PACS", "LUMBAR")),
        (
            "dicom://My%20Pacs@[::1]:104?calling=AI",
            DimseDestination("d", "::1", 104, "My Pacs", "AI"),
        ),
        ("https://host/dicom-web/", DicomwebDestination("d", "https://host/dicom-web")),
        (
            "http://u:p%40w@h:8042/x",
            DicomwebDestination("d", "http://h:8042/x", username="u", password="p@w"),
        ),
        ("https://abc@host/x", DicomwebDestination("d", "https://host/x", token="abc")),
        (
            "dicom://PACS@host:104?confirm=no&probe=echo&calling=AI",
            DimseDestination("d", "host", 104, "PACS", "AI", confirm=False, probe=Probe.ECHO),
        ),
        (
            "dicom://PACS@host:104?confirm=yes&probe=job",
            DimseDestination("d", "host", 104, "PACS"),
        ),
        (
            "https://abc@host/x/?proxy=environment&confirm=no&probe=echo",
            DicomwebDestination(
                "d",
                "https://host/x",
                token="abc",
                confirm=False,
                probe=Probe.ECHO,
                environment=True,
            ),
        ),
    ],
)
def test_a_url_names_a_destination(
    url: str, destination: DimseDestination | DicomwebDestination
) -> None:
    assert parse_destination("d", url) == destination


@pytest.mark.parametrize(
    "url",
    [
        "dicom://host:104",
        "dicom://PACS@host",
        "dicom://PACS@host:0",
        "dicom://PACS@host:99999",
        "dicom://PACS@:104",
        "dicom://SEVENTEENLETTERSX@host:104",
        "dicom://PACS@host:104?caling=AI",
        "dicom://PACS@host:104?calling=",
        "dicom://PACS:secret@host:104",
        "ftp://host/x",
        "host:104",
        "",
        "https:///x",
        "https://:secret@host/x",
        "https://me:secret@host:x/dicom-web",
        "https://me:secret@host/dicom-web?q=1",
        "https://me:secret@host/dicom-web?calling=AI",
        "https://me:secret@host/dicom-web?proxy=none",
        "https://me:secret@host/dicom-web?proxy",
        "https://me:secret@host/dicom-web?confirm=maybe",
        "https://me:secret@host/dicom-web?confirm=no&confirm=yes",
        "dicom://PACS@host:104?proxy=environment",
        "dicom://PACS@host:104?probe=ping",
        "dicom://PACS@host:104?calling=AI&calling=AJ",
    ],
)
def test_an_unusable_url_is_explained_without_its_password(url: str) -> None:
    with pytest.raises(
        WrongSetting, match=r"^destination pacs1: .*expected (dicom|http)"
    ) as failure:
        parse_destination("pacs1", url)
    assert "secret" not in str(failure.value)
    assert failure.value.__cause__ is None


def test_a_destination_never_prints_its_password_or_token() -> None:
    for url in ("https://me:secret@host/x", "https://secret@host/x"):
        assert "secret" not in repr(parse_destination("d", url))
