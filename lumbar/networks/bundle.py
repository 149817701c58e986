"""A bundle: a folder with the weights of both classifiers and ``bundle.json``, which says what they are."""

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
from lumbar.networks.locator import resident as locator
from lumbar.networks.weights import read_weights, write_weights
from lumbar.spine.crops import PREPROCESSING_VERSION, SIDE
from lumbar.spine.provenance import BundleIdentity, TrainedOn

ARCHITECTURES = {"condition": "vgg16", "severity": "resnet50"}


@cache
def resident(folder: Path | None) -> Classifiers:
    """``load_bundle``, once a process; None is the shipped one."""
    return load_bundle(folder or SHIPPED)


def load_bundle(folder: Path) -> Classifiers:
    """The classifiers of a bundle's folder.

    Raises WrongSetting where the bundle is missing, damaged, or made for other classes or another preprocessing.
    """
    described = read_description(folder)
    networks = {kind: load_network(folder, described, kind) for kind in CLASSES}
    return Classifiers(identity_of(described), locator(), **networks)


def load_network(folder: Path, described: Mapping[str, Any], kind: str) -> keras.Model:
    """One of a bundle's networks, in single precision. Raises WrongSetting where its weights do not fit."""
    stated = described["networks"][kind]
    try:
        network = build_classifier(kind, stated["architecture"], stated["side"])
        network.set_weights(read_weights((folder / Path(stated["weights"]).name).read_bytes()))
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
    """Writes both networks' weights in half precision, and then ``bundle.json`` with what is said ``about`` them.

    ``networks`` and ``sides`` (pixels at which each works) by kind, as in ``CLASSES``. The folder is made where it is
    not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stated: dict[str, Any] = {}
    for kind, classes in CLASSES.items():
        file = folder / f"{kind}.npz"
        write_weights(file, [_halved(weights) for weights in networks[kind].get_weights()])
        stated[kind] = {
            "weights": file.name,
            "sha256": _file_sha256(file),
            "architecture": architectures[kind],
            "side": sides[kind],
            "classes": classes,
        }
    described = {
        "name": name,
        "version": version,
        "trained_on": trained_on,
        "preprocessing_version": PREPROCESSING_VERSION,
        "networks": stated,
        **(about or {}),
    }
    write_description(folder, described)
    return identity_of(described)


def write_description(folder: Path, described: Mapping[str, Any]) -> None:
    """``bundle.json``; what is not a number is null there, as JSON knows no NaN."""
    (folder / DESCRIPTION).write_text(
        json.dumps(_numbers(described), indent=2) + "\n", encoding="utf-8"
    )


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _numbers(of) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(of) for of in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_identity(folder: Path) -> BundleIdentity:
    """Who a bundle is, its weights' files checked but not loaded. Raises WrongSetting as ``load_bundle`` does."""
    return identity_of(read_description(folder))


def read_description(folder: Path) -> dict[str, Any]:
    """``bundle.json``, checked against this code and against the files beside it. Raises WrongSetting."""
    try:
        described: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        identity_of(described)
        for kind, classes in CLASSES.items():
            stated = described["networks"][kind]
            file = folder / Path(stated["weights"]).name
            if tuple(stated["classes"]) != classes:
                raise WrongSetting(
                    f"bundle: its {kind} classes or their order differ; train it again"
                )
            if stated["architecture"] not in BACKBONES or not 32 <= stated["side"] <= SIDE:
                raise WrongSetting(
                    f"bundle: its {kind} network is none that this version knows; train it again"
                )
            if _file_sha256(file) != stated["sha256"]:
                raise WrongSetting(
                    f"bundle: {file.name} does not match its sha256; fetch the bundle again"
                )
    except OSError as error:
        raise WrongSetting(
            f"bundle: {Path(error.filename).name} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongSetting(
            f"bundle: {DESCRIPTION} is damaged or lacks an entry; fetch the bundle again"
        ) from error
    if (version := described["preprocessing_version"]) != PREPROCESSING_VERSION:
        raise WrongSetting(
            f"bundle: made for preprocessing version {version}, this is {PREPROCESSING_VERSION}; train it again"
        )
    return described


def _halved(weights: NDArray[Any]) -> NDArray[Any]:
    """Vectors, among them the large variances of batch normalisation, stay whole: they take no room."""
    return weights.astype(np.float16) if weights.ndim > 1 else weights


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
