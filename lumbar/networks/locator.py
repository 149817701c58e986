"""The level locator: two keypoint networks and the border's classifier, in half precision inside the package."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import WrongSetting
from lumbar.networks.identity import DAMAGED, FOLDER, described, locator_sha256
from lumbar.networks.identity import LOCATOR_FILE as DESCRIPTION
from lumbar.networks.keypoint_network import build_border_network, build_keypoint_network
from lumbar.networks.weights import read_weights, write_weights
from lumbar.spine.keypoint_input import AXIAL, BORDER, SAGITTAL, Heat

FRAMINGS = {"sagittal": SAGITTAL, "axial": AXIAL, "border": BORDER}
BATCH = {
    "sagittal": 5,
    "axial": 10,
    "border": 5,
}  # pictures; always this many, padded: the graph is compiled once


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
        """(n, 80, 80) to (n,): the probability that the lumbosacral border is transitional."""
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
        answers = [
            network.predict_on_batch(padded[n : n + batch]) for n in range(0, len(padded), batch)
        ]
        return np.concatenate([np.asarray(answer, np.float32) for answer in answers])[
            : len(pictures)
        ]


@cache
def resident() -> Locator:
    """The shipped locator, once a process. Raises WrongSetting where its files are missing or damaged."""
    return load_locator(FOLDER)


def load_locator(folder: Path) -> Locator:
    """A locator's folder: ``locator.json`` and the weights that it names by their sha256. Raises WrongSetting."""
    stated = described(folder)
    networks = {}
    for kind, framing in FRAMINGS.items():
        try:
            content = (folder / Path(stated[kind]["weights"]).name).read_bytes()
            if hashlib.sha256(content).hexdigest() != stated[kind]["sha256"]:
                raise WrongSetting(
                    f"locator: the {kind} weights do not match their sha256; install this version again"
                )
            if stated[kind]["points"] != list(framing.points):
                raise WrongSetting(
                    f"locator: its {kind} network was made for other points; train it again"
                )
            networks[kind] = build_network(kind)
            networks[kind].set_weights(read_weights(content))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
            raise WrongSetting(DAMAGED) from error
    return Locator(locator_sha256(stated), networks)


def write_network(folder: Path, kind: str, network: keras.Model, about: dict[str, object]) -> None:
    """Writes one network's weights in half precision, and what is said ``about`` them into ``locator.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{kind}.npz"
    write_weights(file, [weights.astype(np.float16) for weights in network.get_weights()])
    stated = described(folder) if (folder / DESCRIPTION).exists() else {}
    stated[kind] = {
        "weights": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "points": list(FRAMINGS[kind].points),
        **about,
    }
    (folder / DESCRIPTION).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")


def build_network(kind: str) -> keras.Model:
    """A new network of a kind in ``FRAMINGS``."""
    return build_border_network() if kind == "border" else build_keypoint_network(FRAMINGS[kind])
