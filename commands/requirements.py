"""What a command needs besides the package itself, checked before it starts its work."""

from pathlib import Path

from lumbar.errors import WrongSetting
from lumbar.networks import installed, require_tensorflow

# Packages of the extra `train`, by the names they are imported under.
TRAINING = (
    "markdown",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "scipy",
    "sklearn",
    "tensorboard",
    "tf2onnx",
)
INSTALL_TRAINING = "training needs `pip install 'lumbar-triage[train]'`"


def require_training(*modules: str) -> None:
    """Requires TensorFlow and these packages of the extra `train`; without names, all of them."""
    require_tensorflow()
    for module in modules or TRAINING:
        if not installed(module):
            raise WrongSetting(f"{module} is not installed; {INSTALL_TRAINING}")


def require_folder(folder: Path) -> None:
    """Creates a folder that the results will be written to, so that this cannot fail in the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongSetting(
            f"{folder} cannot be made ({error.strerror}); name another folder"
        ) from error
