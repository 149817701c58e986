"""A bundle: a folder with the weights of both networks and ``bundle.json``, which says what they are."""

import hashlib
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lumbar.errors import WrongSetting
from lumbar.networks.classifiers import (
    CONDITION_CLASSES,
    SEVERITY_CLASSES,
    Classifiers,
    build_condition_network,
    build_severity_network,
)
from lumbar.networks.locator import DAMAGED, FOLDER, shipped_sha256
from lumbar.networks.locator import described as locator_described
from lumbar.networks.locator import resident as locator
from lumbar.spine.crops import PREPROCESSING_VERSION
from lumbar.spine.provenance import BundleIdentity, TrainedOn

DESCRIPTION = "bundle.json"
CLASSES = {"condition": CONDITION_CLASSES, "severity": SEVERITY_CLASSES}
INITIAL_SEED = 2024


@cache
def resident(folder: Path | None) -> Classifiers:
    """``load_bundle``, once a process."""
    return load_bundle(folder)


def load_bundle(folder: Path | None) -> Classifiers:
    """The classifiers of a bundle's folder; None gives untrained ones, the same on every run.

    Raises WrongSetting where the bundle is missing, damaged, or made for other classes or another preprocessing.
    """
    if folder is None:
        return _initial()
    described = _described(folder)
    networks = {"condition": build_condition_network(), "severity": build_severity_network()}
    for name, network in networks.items():
        try:
            network.load_weights(folder / Path(described["networks"][name]["weights"]).name)
        except (OSError, ValueError, KeyError) as error:
            raise WrongSetting(f"bundle: the {name} weights do not fit this version's network") from error
    return Classifiers(_identity(described), locator(), **networks)


def write_bundle(
    folder: Path, name: str, version: str, trained_on: TrainedOn, condition: keras.Model, severity: keras.Model
) -> BundleIdentity:
    """Writes both networks' weights and then ``bundle.json``; the folder is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    networks: dict[str, Any] = {}
    for kind, network in (("condition", condition), ("severity", severity)):
        file = folder / f"{kind}.weights.h5"
        network.save_weights(file)
        networks[kind] = {"weights": file.name, "sha256": _file_sha256(file), "classes": CLASSES[kind]}
    described = {
        "name": name,
        "version": version,
        "trained_on": trained_on,
        "preprocessing_version": PREPROCESSING_VERSION,
        "networks": networks,
    }
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return _identity(described)


def read_identity(folder: Path) -> BundleIdentity:
    """Who a bundle is, its weights' files checked but not loaded. Raises WrongSetting as ``load_bundle`` does."""
    return _identity(_described(folder))


def _described(folder: Path) -> dict[str, Any]:
    """``bundle.json``, checked against this code and against the files beside it."""
    try:
        described: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        _identity(described)
        for name, classes in CLASSES.items():
            stated = described["networks"][name]
            file = folder / Path(stated["weights"]).name
            if tuple(stated["classes"]) != classes:
                raise WrongSetting(f"bundle: its {name} classes or their order differ; train it again")
            if _file_sha256(file) != stated["sha256"]:
                raise WrongSetting(f"bundle: {file.name} does not match its sha256; fetch the bundle again")
    except OSError as error:
        raise WrongSetting(f"bundle: {Path(error.filename).name} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongSetting(f"bundle: {DESCRIPTION} is damaged or lacks an entry; fetch the bundle again") from error
    if (version := described["preprocessing_version"]) != PREPROCESSING_VERSION:
        raise WrongSetting(
            f"bundle: made for preprocessing version {version}, this is {PREPROCESSING_VERSION}; train it again"
        )
    return described


def _identity(described: dict[str, Any]) -> BundleIdentity:
    """``weights_sha256`` is that of the digests of condition's, severity's and the level locator's weights."""
    digests = "".join(described["networks"][name]["sha256"] for name in CLASSES) + shipped_sha256()
    return BundleIdentity(
        name=str(described["name"]),
        version=str(described["version"]),
        weights_sha256=hashlib.sha256(digests.encode("ascii")).hexdigest(),
        trained_on=_weakest(TrainedOn(described["trained_on"])),
        preprocessing_version=str(described["preprocessing_version"]),
    )


def _weakest(own: TrainedOn) -> TrainedOn:
    """What the bundle's own networks and the level locator's have all learnt from: a grade at a place that phantoms
    alone have taught is no clinical one."""
    try:
        locators = [TrainedOn(stated["trained_on"]) for stated in locator_described(FOLDER).values()]
    except (KeyError, ValueError) as error:
        raise WrongSetting(DAMAGED) from error
    return min(own, *locators, key=list(TrainedOn).index)


def _initial() -> Classifiers:
    keras.utils.set_random_seed(INITIAL_SEED)
    condition, severity = build_condition_network(), build_severity_network()
    random.seed()  # Keras has seeded the whole process; jitter must not be alike in every worker
    np.random.seed()
    digest = hashlib.sha256(shipped_sha256().encode("ascii"))
    for weights in (*condition.get_weights(), *severity.get_weights()):
        digest.update(np.ascontiguousarray(weights).tobytes())
    identity = BundleIdentity("initial", "0", digest.hexdigest(), TrainedOn.NOTHING, PREPROCESSING_VERSION)
    return Classifiers(identity, locator(), condition, severity)


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
