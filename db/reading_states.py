"""Which studies wait to be read, have been read, or have left the worklist unread: conditions."""

from sqlalchemy import ColumnElement

from db.models import ReadingState, Study, StudyState


def is_in(reading: ReadingState) -> ColumnElement[bool]:
    """The condition that a study waits to be read, has been read, or has expired unread."""
    match reading:
        case ReadingState.READ:
            return Study.read_at.is_not(None)
        case ReadingState.EXPIRED:
            return Study.read_at.is_(None) & Study.expired_at.is_not(None)
        case ReadingState.WAITING:
            return Study.read_at.is_(None) & Study.expired_at.is_(None)


def is_on_worklist() -> ColumnElement[bool]:
    """The condition that a study waits to be read, and has images to read."""
    return is_in(ReadingState.WAITING) & (Study.state != StudyState.NO_IMAGES)
