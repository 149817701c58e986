"""Hostile texts in valid images: they are stored, and shown as text everywhere."""

from tests.hostile.datasets import CHARSET, NAME, PATIENT, Changes
from tests.hostile.wire import element

ACCESSION, STUDY_DESCRIPTION = 0x00080050, 0x00081030

TEXTS = {
    "a script": "<script>alert(1)</script>",
    "a picture that is not there": "<img src=x onerror=alert(1)>",
    "a formula": "=cmd|' /C calc'!A0",
    "a formula with a plus": "+1+cmd|' /C calc'!A0",
    "a formula with a minus": "-2+3+cmd|' /C calc'!A0",
    "a formula with an at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "a formula after a tab": "\t=1+1",
    "a formula after spaces": "  =1+1",
    "a formula after a line's end": "\r\n=1+1",
    "a colour": "\x1b[31mred",
    "a cleared screen": "\x1b[2J\x1b[H",
    "a window's title": "\x1b]0;owned\x07",
    "an eight-bit escape": "\u009b31mred",
    "a backspace": "abc\b\b\bxyz",
    "a delete": "abc\x7f",
    "a line of log": "x\nlevel=info event=forged",
    "a new line of text": "x\u2028y\u2029z\u0085",
    "a text turned around": "\u202egnitset\u202c",
    "a cell's end": 'a","b";c',
    "a quote left open": '"',
    "a statement": "'; DROP TABLE patient; --",
    "a format": "%s%n{0.__class__.__mro__}${jndi:ldap://127.0.0.1/x}",
    "markup": "[bold red]x[/] [link=http://127.0.0.1]y[/link]",
    "a path": "../../../../etc/passwd",
}


def changes(text: str) -> Changes:
    """The header elements that are shown, all with this text."""
    value = text.encode()
    return {
        CHARSET: element(CHARSET, b"CS", b"ISO_IR 192"),
        ACCESSION: element(ACCESSION, b"SH", value),
        STUDY_DESCRIPTION: element(STUDY_DESCRIPTION, b"LO", value),
        NAME: element(NAME, b"PN", value),
        PATIENT: element(PATIENT, b"LO", value),
    }
