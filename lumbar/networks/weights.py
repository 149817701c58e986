"""A network's weights as a NumPy file, in the order in which Keras lists them."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_weights(file: Path, weights: Sequence[NDArray[Any]]) -> None:
    """Writes the arrays in their own precision."""
    named: dict[str, Any] = {f"{i:04}": array for i, array in enumerate(weights)}
    np.savez(file, **named)


def read_weights(content: bytes) -> list[NDArray[np.float32]]:
    """The arrays in single precision.

    Raises:
        ValueError: the content is not a NumPy file, or is damaged.
        KeyError: as above.
        BadZipFile: as above.
    """
    with np.load(BytesIO(content)) as arrays:
        return [arrays[name].astype(np.float32) for name in sorted(arrays.files)]
