"""A bundle's networks for other software: Keras, HDF5, ONNX, TensorFlow Lite; each held against the original."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import Permanent
from lumbar.networks.bundle import load_network, read_description
from lumbar.networks.classifiers import CLASSES, predict

TOLERANCE = 1e-3  # by which a probability may differ

Crops = NDArray[np.float32]
Ask = Callable[[Crops], Crops]


def export_bundle(
    bundle: Path,
    out: Path,
    formats: list[str],
    crops: Crops,
    advance: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """Writes ``<kind>.<format>`` files, and tells of each by how much it differs from the original on the crops.

    ``formats``: of ``FORMATS``. ``crops``: (n, 224, 224), 0–1. Raises WrongSetting for a bundle that cannot be read,
    Permanent where a file answers otherwise than the original.
    """
    described = read_description(bundle)
    out.mkdir(parents=True, exist_ok=True)
    told = []
    for kind in CLASSES:
        network = load_network(bundle, described, kind)
        expected = predict(network, crops)
        for name in formats:
            write, read = FORMATS[name]
            file = out / f"{kind}.{name}"
            write(network, file)
            apart = float(np.abs(read(file)(crops) - expected).max())
            if not apart <= TOLERANCE:  # nor where it is no number
                file.unlink()
                raise Permanent(
                    f"{file.name} differs from the original by {apart:.1e} and was removed"
                )
            told.append(
                {
                    "file": file.name,
                    "bytes": file.stat().st_size,
                    "differs": apart,
                    "crops": len(crops),
                }
            )
            advance(1)
    return told


@contextmanager
def _as_read(network: keras.Model) -> Iterator[None]:
    """Keras else exports batch normalisation as it is while learning: by the statistics of the crops asked."""
    network.trainable = False
    try:
        yield
    finally:
        network.trainable = True


def _write_keras(network: keras.Model, file: Path) -> None:
    network.save(file)


def _read_keras(file: Path) -> Ask:
    network = keras.models.load_model(file, compile=False)
    return lambda crops: predict(network, crops)


def _write_onnx(network: keras.Model, file: Path) -> None:
    with _as_read(network):
        network.export(file, format="onnx", verbose=False)


def _read_onnx(file: Path) -> Ask:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda crops: np.concatenate(
        [session.run(None, {name: crops[i : i + 1]})[0] for i in range(len(crops))]
    )


def _write_tflite(network: keras.Model, file: Path) -> None:
    import tensorflow

    with TemporaryDirectory() as saved, _as_read(network):
        network.export(saved, format="tf_saved_model", verbose=False)
        file.write_bytes(tensorflow.lite.TFLiteConverter.from_saved_model(saved).convert())


def _read_tflite(file: Path) -> Ask:
    import tensorflow

    interpreter = tensorflow.lite.Interpreter(str(file))
    (asked,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(asked["index"], (1, *asked["shape"][1:]))
    interpreter.allocate_tensors()

    def ask(crop: Crops) -> Crops:
        interpreter.set_tensor(asked["index"], crop)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(answer["index"]), np.float32)

    return lambda crops: np.concatenate([ask(crops[i : i + 1]) for i in range(len(crops))])


FORMATS: dict[str, tuple[Callable[[keras.Model, Path], None], Callable[[Path], Ask]]] = {
    "keras": (_write_keras, _read_keras),
    "h5": (_write_keras, _read_keras),
    "onnx": (_write_onnx, _read_onnx),
    "tflite": (_write_tflite, _read_tflite),
}
