"""The console script `lumbar`: one module per command group.

Expected errors end in one line on standard error and an exit status, never in a traceback.
"""

import io
import os
import sys
from errno import EDQUOT, EFBIG, EIO, ENOSPC
from typing import Any

from lumbar.errors import LumbarError, NotAnalysable, WrongSetting

STATUS = {NotAnalysable: 3, WrongSetting: 2}
DISK_FULL = (ENOSPC, EDQUOT, EFBIG, EIO)


def main() -> None:
    """Runs the command line.

    Exit status: 0 success, 1 failure, 2 wrong usage or setting, 3 not analysable.
    """
    _open_standard_streams()
    from commands.app import app

    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show a character shows a question mark
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `lumbar … | head`
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        status, *lines = _explained(error)
        if not lines:
            raise
        sys.stderr.writelines(f"{line}\n" for line in lines)
        if isinstance(error, OSError):  # what is left of the output is not written either
            sys.stdout = None
        sys.exit(status)


def _open_standard_streams() -> None:
    """Opens those that were closed (`lumbar up 2>&-`), so that no other file takes their number.

    Otherwise what a library prints could be written into the database.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _explained(error: Exception) -> tuple[Any, ...]:
    """An expected error's exit status and its lines for the user; of any other, no line."""
    match error:
        case LumbarError():
            notes = error.notes if isinstance(error, NotAnalysable) else ()
            kinds = (status for kind, status in STATUS.items() if isinstance(error, kind))
            return next(kinds, 1), *notes, f"lumbar: {error}"
        case ModuleNotFoundError():
            from commands.requirements import INSTALL_TRAINING, TRAINING

            if (error.name or "").split(".")[0] in TRAINING:
                return 2, f"lumbar: {error.name} is not installed; {INSTALL_TRAINING}"
        case UnicodeEncodeError():  # no database takes surrogates: they stand for other bytes
            return 2, "lumbar: an argument is not valid text; write it in UTF-8"
        case OSError(filename=None) if error.errno in DISK_FULL:
            return 1, f"lumbar: the output cannot be written: {error.strerror}"
        case OSError(filename=None) if "temporary directory" in str(error):
            return 1, "lumbar: no folder for temporary files can be written; set TMPDIR to one"
    return (1,)
