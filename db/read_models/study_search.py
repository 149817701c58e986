"""Searches studies by prefixes of words: patients' names and numbers, and accession numbers.

The words are stored folded (without case and accents) beside the study, in one index that sorts by
code points: a prefix is then a range of it, on SQLite and on PostgreSQL alike, however many studies
there are.
"""

import re
import unicodedata

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import ReadingState, SearchKey, Study
from db.reading_states import is_in

MAX_MATCHES = 1000  # studies; a search that matches more is too vague to list them all
_SEPARATORS = re.compile(r"[\s^=,;]+")  # of a person name (PS3.5 6.2), and of what users type
_LAST_CHARACTER = "\U0010ffff"


def folded(text: str) -> str:
    """The text without case and accents, at most 64 characters; ``Müller`` becomes ``muller``."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if not unicodedata.combining(c))[:64]


def keys_of(study: Study) -> list[SearchKey]:
    """The words by which a study can be searched."""
    patient = study.patient
    words = words_of(study.accession_number, patient.patient_identifier, patient.name)
    return [SearchKey(study_id=study.id, word=word) for word in sorted(words)]


def words_of(*texts: str) -> set[str]:
    """The folded words of the texts: each text as a whole, and its parts."""
    return {folded(word) for text in texts for word in (text, *_SEPARATORS.split(text))} - {""}


def matching(session: Session, text: str, *, unread: bool = False) -> list[int]:
    """The ids of the studies that have, for each word of the text, one that begins with it.

    Also the study whose UID the text is. Of more than ``MAX_MATCHES`` studies, the newest.
    ``unread``: match words of studies that wait to be read only.
    """
    words = [folded(word) for word in _SEPARATORS.split(text.strip()) if folded(word)]
    if not words:
        return []
    first, *others = (
        SearchKey.word.between(word, word + _LAST_CHARACTER)
        for word in sorted(words, key=len, reverse=True)
    )
    have_others = (
        SearchKey.study_id.in_(select(SearchKey.study_id).where(other)) for other in others
    )
    by_words = select(SearchKey.study_id).where(first, *have_others).distinct()
    by_uid = select(Study.id).where(Study.study_instance_uid == text.strip())
    if unread:
        by_words = by_words.join(Study, Study.id == SearchKey.study_id).where(
            is_in(ReadingState.WAITING)
        )
    newest = by_words.order_by(SearchKey.study_id.desc()).limit(MAX_MATCHES)
    return [*session.scalars(by_uid), *session.scalars(newest)]
