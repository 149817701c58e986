"""Exports a bundle's networks to Keras, HDF5, ONNX and TensorFlow Lite, and verifies each file."""

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

# Maximum absolute difference of a probability.
TOLERANCE = 1e-3

Crops = NDArray[np.float32]
Predict = Callable[[Crops], Crops]


def export_bundle(
    bundle: Path,
    out: Path,
    formats: list[str],
    crops: Crops,
    advance: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """Writes ``<kind>.<format>`` files; returns each one's size and largest difference on crops.

    ``formats``: keys of ``FORMATS``. ``crops``: (n, 224, 224), 0–1.

    Raises:
        WrongSetting: the bundle cannot be read.
        Permanent: a file's probabilities differ from the original's by more than ``TOLERANCE``.
    """
    description = read_description(bundle)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind in CLASSES:
        network = load_network(bundle, description, kind)
        expected = predict(network, crops)
        for name in formats:
            write, read = FORMATS[name]
            file = out / f"{kind}.{name}"
            write(network, file)
            difference = float(np.abs(read(file)(crops) - expected).max())
            # "not <=" rejects NaN too.
            if not difference <= TOLERANCE:
                file.unlink()
                raise Permanent(
                    f"{file.name} differs from the original by {difference:.1e} and was removed"
                )
            rows.append(
                {
                    "file": file.name,
                    "bytes": file.stat().st_size,
                    "differs": difference,
                    "crops": len(crops),
                }
            )
            advance(1)
    return rows


@contextmanager
def _inference_mode(network: keras.Model) -> Iterator[None]:
    """Without it, Keras exports batch normalisation in training mode, with batch statistics."""
    network.trainable = False
    try:
        yield
    finally:
        network.trainable = True


def _write_keras(network: keras.Model, file: Path) -> None:
    network.save(file)


def _read_keras(file: Path) -> Predict:
    network = keras.models.load_model(file, compile=False)
    return lambda crops: predict(network, crops)


def _write_onnx(network: keras.Model, file: Path) -> None:
    with _inference_mode(network):
        network.export(file, format="onnx", verbose=False)


def _read_onnx(file: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda crops: np.concatenate(
        [session.run(None, {name: crops[i : i + 1]})[0] for i in range(len(crops))]
    )


def _write_tflite(network: keras.Model, file: Path) -> None:
    import tensorflow

    with TemporaryDirectory() as saved, _inference_mode(network):
        network.export(saved, format="tf_saved_model", verbose=False)
        file.write_bytes(tensorflow.lite.TFLiteConverter.from_saved_model(saved).convert())


def _read_tflite(file: Path) -> Predict:
    import tensorflow

    interpreter = tensorflow.lite.Interpreter(str(file))
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], (1, *source["shape"][1:]))
    interpreter.allocate_tensors()

    def predict(crop: Crops) -> Crops:
        interpreter.set_tensor(source["index"], crop)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(result["index"]), np.float32)

    return lambda crops: np.concatenate([predict(crops[i : i + 1]) for i in range(len(crops))])


FORMATS: dict[str, tuple[Callable[[keras.Model, Path], None], Callable[[Path], Predict]]] = {
    "keras": (_write_keras, _read_keras),
    "h5": (_write_keras, _read_keras),
    "onnx": (_write_onnx, _read_onnx),
    "tflite": (_write_tflite, _read_tflite),
}
