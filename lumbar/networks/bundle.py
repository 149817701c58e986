"""A bundle: a folder with both classifiers' weights and their description, ``bundle.json``."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from numpy.typing import NDArray

from lumbar.errors import WrongSetting
from lumbar.networks.classifiers import BACKBONES, CLASSES, Classifiers, build_classifier
from lumbar.networks.identity import BUNDLE_FILE as DESCRIPTION
from lumbar.networks.identity import SHIPPED as SHIPPED
from lumbar.networks.identity import identity_of
from lumbar.networks.locator import cached_locator
from lumbar.networks.weights import read_weights, write_weights
from lumbar.spine.crops import PREPROCESSING_VERSION, SIDE
from lumbar.spine.provenance import BundleIdentity, TrainedOn

ARCHITECTURES = {"condition": "vgg16", "severity": "resnet50"}


@cache
def cached_bundle(folder: Path | None) -> Classifiers:
    """``load_bundle``, once per process; None: the shipped bundle."""
    return load_bundle(folder or SHIPPED)


def load_bundle(folder: Path) -> Classifiers:
    """The classifiers of a bundle's folder.

    Raises:
        WrongSetting: the bundle is missing, damaged, or made for other classes or another
            version of the preprocessing.
    """
    description = read_description(folder)
    networks = {kind: load_network(folder, description, kind) for kind in CLASSES}
    return Classifiers(identity_of(description), cached_locator(), **networks)


def load_network(folder: Path, description: Mapping[str, Any], kind: str) -> keras.Model:
    """One of a bundle's networks, in single precision. ``kind``: a key of ``CLASSES``.

    Raises:
        WrongSetting: its weights do not fit the network.
    """
    entry = description["networks"][kind]
    try:
        network = build_classifier(kind, entry["architecture"], entry["side"])
        network.set_weights(read_weights((folder / Path(entry["weights"]).name).read_bytes()))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise WrongSetting(
            f"bundle: the {kind} weights do not fit this version's network"
        ) from error
    return network


def write_bundle(
    folder: Path,
    name: str,
    version: str,
    trained_on: TrainedOn,
    networks: Mapping[str, keras.Model],
    sides: Mapping[str, int],
    about: Mapping[str, Any] | None = None,
    architectures: Mapping[str, str] = ARCHITECTURES,
) -> BundleIdentity:
    """Writes both networks' weights in half precision, then ``bundle.json``.

    ``networks``, ``sides`` (input size in pixels) and ``architectures`` by kind, as in ``CLASSES``.
    ``about``: further entries for the description. The folder is created if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    for kind, classes in CLASSES.items():
        file = folder / f"{kind}.npz"
        write_weights(file, [_half_precision(array) for array in networks[kind].get_weights()])
        entries[kind] = {
            "weights": file.name,
            "sha256": _file_sha256(file),
            "architecture": architectures[kind],
            "side": sides[kind],
            "classes": classes,
        }
    description = {
        "name": name,
        "version": version,
        "trained_on": trained_on,
        "preprocessing_version": PREPROCESSING_VERSION,
        "networks": entries,
        **(about or {}),
    }
    write_description(folder, description)
    return identity_of(description)


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Writes ``bundle.json``, with null in place of NaN, which JSON lacks."""
    content = json.dumps(_without_nan(description), indent=2)
    (folder / DESCRIPTION).write_text(content + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_identity(folder: Path) -> BundleIdentity:
    """The identity of a bundle; the files of its weights are checked but not loaded.

    Raises:
        WrongSetting: as for ``load_bundle``.
    """
    return identity_of(read_description(folder))


def read_description(folder: Path) -> dict[str, Any]:
    """``bundle.json``, checked against this code and against the files beside it.

    Raises:
        WrongSetting: as for ``load_bundle``.
    """
    try:
        text = (folder / DESCRIPTION).read_text(encoding="utf-8")
        description: dict[str, Any] = json.loads(text)
        identity_of(description)
        for kind in CLASSES:
            _check_network(folder, description["networks"][kind], kind)
    except OSError as error:
        raise WrongSetting(
            f"bundle: {Path(error.filename).name} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongSetting(
            f"bundle: {DESCRIPTION} is damaged or lacks an entry; fetch the bundle again"
        ) from error
    if (version := description["preprocessing_version"]) != PREPROCESSING_VERSION:
        raise WrongSetting(
            f"bundle: made for preprocessing version {version}, "
            f"this is version {PREPROCESSING_VERSION}; train it again"
        )
    return description


def _check_network(folder: Path, entry: Mapping[str, Any], kind: str) -> None:
    file = folder / Path(entry["weights"]).name
    if tuple(entry["classes"]) != CLASSES[kind]:
        raise WrongSetting(f"bundle: its {kind} classes or their order differ; train it again")
    if entry["architecture"] not in BACKBONES or not 32 <= entry["side"] <= SIDE:
        raise WrongSetting(f"bundle: this version does not know its {kind} network; train it again")
    if _file_sha256(file) != entry["sha256"]:
        raise WrongSetting(f"bundle: {file.name} does not match its sha256; fetch the bundle again")


def _half_precision(weights: NDArray[Any]) -> NDArray[Any]:
    """Not for vectors: they are short, and the variances of batch normalisation are large."""
    return weights.astype(np.float16) if weights.ndim > 1 else weights


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
