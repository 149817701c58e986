"""The console script `lumbar`: one file a command group. Errors end in one line and a status, never a traceback."""

import sys

from lumbar.errors import LumbarError, NotAnalysable, WrongSetting

STATUS = {NotAnalysable: 3, WrongSetting: 2}
TRAINING = (
    "markdown",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "sklearn",
    "tensorboard",
    "tf2onnx",
)  # the extra `train`


def main() -> None:
    """Runs the command line. Exit status: 0 done, 1 failed, 2 wrong usage or setting, 3 not analysable."""
    from commands.app import app

    try:
        app()
    except LumbarError as error:
        told = error.notes if isinstance(error, NotAnalysable) else ()
        sys.stderr.writelines(f"{line}\n" for line in (*told, f"lumbar: {error}"))
        sys.exit(next((status for kind, status in STATUS.items() if isinstance(error, kind)), 1))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in TRAINING:
            raise
        lacking = (
            f"{error.name} is not installed; teaching needs `pip install 'lumbar-triage[train]'`"
        )
        sys.stderr.write(f"lumbar: {lacking}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `lumbar … | head`
        sys.stderr.close()
        sys.exit(1)
