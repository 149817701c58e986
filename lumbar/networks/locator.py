"""The level locator: two keypoint networks and the border classifier.

Its weights are shipped inside the package, in half precision.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import WrongSetting
from lumbar.networks.identity import DAMAGED, FOLDER, locator_sha256, read_locator_description
from lumbar.networks.identity import LOCATOR_FILE as DESCRIPTION
from lumbar.networks.keypoint_network import build_border_network, build_keypoint_network
from lumbar.networks.weights import read_weights, write_weights
from lumbar.spine.keypoint_input import AXIAL, BORDER, SAGITTAL, Heat

FRAMINGS = {"sagittal": SAGITTAL, "axial": AXIAL, "border": BORDER}
# Pictures per call; shorter batches are padded, so that each graph is compiled only once.
BATCH = {"sagittal": 5, "axial": 10, "border": 5}


class Locator:
    """The networks of the level locator, kept in memory."""

    def __init__(self, sha256: str, networks: Mapping[str, keras.Model]) -> None:
        self.sha256 = sha256
        self._networks = networks

    def sagittal(self, pictures: NDArray[np.float32]) -> Heat:
        """(n, 192, 192) to (n, 96, 96, 13) probabilities of each of ``SAGITTAL.points`` by cell.

        A map's sum is the probability that its point is visible.
        """
        return self._heat("sagittal", pictures)

    def axial(self, pictures: NDArray[np.float32]) -> Heat:
        """(n, 128, 128) to (n, 64, 64, 3), as ``sagittal``, for ``AXIAL.points``."""
        return self._heat("axial", pictures)

    def border(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 80, 80) to (n,) probabilities that the lumbosacral border is transitional."""
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
        outputs = [
            np.asarray(network.predict_on_batch(padded[n : n + batch]), np.float32)
            for n in range(0, len(padded), batch)
        ]
        return np.concatenate(outputs)[: len(pictures)]


@cache
def cached_locator() -> Locator:
    """The shipped locator, loaded once per process.

    Raises:
        WrongSetting: its files are missing or damaged.
    """
    return load_locator(FOLDER)


def load_locator(folder: Path) -> Locator:
    """The locator of a folder: ``locator.json`` and the weights it lists.

    Raises:
        WrongSetting: a file is missing or damaged, does not match its sha256, or belongs to a
            network for other points.
    """
    description = read_locator_description(folder)
    networks = {}
    for kind in FRAMINGS:
        try:
            networks[kind] = _load_network(folder, description[kind], kind)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
            raise WrongSetting(DAMAGED) from error
    return Locator(locator_sha256(description), networks)


def _load_network(folder: Path, entry: Mapping[str, Any], kind: str) -> keras.Model:
    content = (folder / Path(entry["weights"]).name).read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise WrongSetting(
            f"locator: the {kind} weights do not match their sha256; install this version again"
        )
    if entry["points"] != list(FRAMINGS[kind].points):
        raise WrongSetting(f"locator: its {kind} network was made for other points; train it again")
    network = build_network(kind)
    network.set_weights(read_weights(content))
    return network


def write_network(folder: Path, kind: str, network: keras.Model, about: dict[str, object]) -> None:
    """Writes one network's weights in half precision, and its entry in ``locator.json``.

    ``about``: further values for that entry. The folder is created if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{kind}.npz"
    write_weights(file, [weights.astype(np.float16) for weights in network.get_weights()])
    entries = read_locator_description(folder) if (folder / DESCRIPTION).exists() else {}
    entries[kind] = {
        "weights": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "points": list(FRAMINGS[kind].points),
        **about,
    }
    (folder / DESCRIPTION).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def build_network(kind: str) -> keras.Model:
    """A new network of a kind in ``FRAMINGS``, with random weights."""
    return build_border_network() if kind == "border" else build_keypoint_network(FRAMINGS[kind])
