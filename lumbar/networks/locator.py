"""The level locator: two keypoint networks and the border's classifier, in half precision inside the package."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import WrongSetting
from lumbar.networks.keypoints import build_border_network, build_keypoint_network
from lumbar.spine.keypoints import AXIAL, BORDER, SAGITTAL, Heat

FOLDER = Path(__file__).parent / "locator_weights"
DESCRIPTION = "locator.json"
FRAMINGS = {"sagittal": SAGITTAL, "axial": AXIAL, "border": BORDER}
BATCH = {"sagittal": 5, "axial": 10, "border": 3}  # pictures; always this many, padded: the graph is compiled once


class Locator:
    """All its networks, resident."""

    def __init__(self, sha256: str, networks: Mapping[str, keras.Model]) -> None:
        self.sha256 = sha256
        self._networks = networks

    def sagittal(self, pictures: NDArray[np.float32]) -> Heat:
        """(n, 192, 192) to (n, 96, 96, 13): the probability of each of ``SAGITTAL.points`` at each cell.

        What lacks to 1 is that it does not show.
        """
        return self._heat("sagittal", pictures)

    def axial(self, pictures: NDArray[np.float32]) -> Heat:
        """(n, 128, 128) to (n, 64, 64, 3), likewise of ``AXIAL.points``."""
        return self._heat("axial", pictures)

    def border(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 64, 64) to (n,): the probability that the lumbosacral border is transitional."""
        return np.asarray(1 / (1 + np.exp(-self._logits("border", pictures)[:, 0])))

    def _heat(self, kind: str, pictures: NDArray[np.float32]) -> Heat:
        cells = FRAMINGS[kind].cells
        logits = self._logits(kind, pictures)
        heat = np.exp(logits - logits.max(axis=1, keepdims=True))
        heat /= heat.sum(axis=1, keepdims=True)
        return np.asarray(heat[:, :-1].reshape(len(heat), cells, cells, -1))

    def _logits(self, kind: str, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        side, batch, network = FRAMINGS[kind].side, BATCH[kind], self._networks[kind]
        padded = np.zeros((-(-len(pictures) // batch) * batch, side, side), np.float32)
        padded[: len(pictures)] = pictures
        answers = [network.predict_on_batch(padded[n : n + batch]) for n in range(0, len(padded), batch)]
        return np.concatenate([np.asarray(answer, np.float32) for answer in answers])[: len(pictures)]


@cache
def resident() -> Locator:
    """The shipped locator, once a process. Raises WrongSetting where its files are missing or damaged."""
    return load_locator(FOLDER)


def shipped_sha256() -> str:
    """Of the shipped weights, as ``locator.json`` states it. Raises WrongSetting where that is missing or damaged."""
    return str(_described(FOLDER)["sha256"])


def load_locator(folder: Path) -> Locator:
    """A locator's folder: ``locator.json`` and the weights that it names by their sha256."""
    try:
        described = _described(folder)
        file = folder / Path(described["weights"]).name
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if sha256 != described["sha256"]:
            raise WrongSetting("locator: the weights do not match their sha256; install this version again")
        points = {kind: list(framing.points) for kind, framing in FRAMINGS.items()}
        if described["points"] != points:
            raise WrongSetting("locator: made for other points; train it again")
        with np.load(file) as arrays:
            networks = {kind: _network(kind, arrays) for kind in FRAMINGS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongSetting("locator: its files are missing or damaged; install this version again") from error
    return Locator(sha256, networks)


def _described(folder: Path) -> dict[str, Any]:
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        return {"weights": str(described["weights"]), "sha256": str(described["sha256"]), **described}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongSetting("locator: its files are missing or damaged; install this version again") from error


def write_locator(folder: Path, networks: dict[str, keras.Model], about: dict[str, object]) -> None:
    """Writes weights in half precision, then ``locator.json`` with what is said ``about`` them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "locator.npz"
    arrays = {
        f"{kind}/{i:03}": weights.astype(np.float16)
        for kind, network in networks.items()
        for i, weights in enumerate(network.get_weights())
    }
    np.savez(file, **arrays)
    described = {
        "weights": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "points": {kind: list(framing.points) for kind, framing in FRAMINGS.items()},
        **about,
    }
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _network(kind: str, arrays: "np.lib.npyio.NpzFile") -> keras.Model:
    network = build_border_network() if kind == "border" else build_keypoint_network(FRAMINGS[kind])
    names = sorted(name for name in arrays.files if name.startswith(f"{kind}/"))
    network.set_weights([arrays[name].astype(np.float32) for name in names])
    return network
