"""The console script `lumbar`: one module per command group.

Expected errors end in one line on standard error and an exit status, never in a traceback.
"""

import io
import sys
from errno import EDQUOT, EFBIG, EIO, ENOSPC

from lumbar.errors import LumbarError, NotAnalysable, WrongSetting

STATUS = {NotAnalysable: 3, WrongSetting: 2}
DISK_FULL = (ENOSPC, EDQUOT, EFBIG, EIO)


def main() -> None:
    """Runs the command line.

    Exit status: 0 success, 1 failure, 2 wrong usage or setting, 3 not analysable.
    """
    from commands.app import app

    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show a character shows a question mark
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except LumbarError as error:
        notes = error.notes if isinstance(error, NotAnalysable) else ()
        sys.stderr.writelines(f"{line}\n" for line in (*notes, f"lumbar: {error}"))
        sys.exit(next((status for kind, status in STATUS.items() if isinstance(error, kind)), 1))
    except ModuleNotFoundError as error:
        from commands.requirements import INSTALL_TRAINING, TRAINING

        if (error.name or "").split(".")[0] not in TRAINING:
            raise
        sys.stderr.write(f"lumbar: {error.name} is not installed; {INSTALL_TRAINING}\n")
        sys.exit(2)
    except UnicodeEncodeError:  # a database takes no surrogates, which stand for undecodable bytes
        sys.stderr.write("lumbar: an argument is not valid text; write it in UTF-8\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `lumbar … | head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISK_FULL or error.filename is not None:
            raise
        sys.stderr.write(f"lumbar: the output cannot be written: {error.strerror}\n")
        sys.stdout = None  # type: ignore[assignment]  # nor is the rest, when the process ends
        sys.exit(1)
