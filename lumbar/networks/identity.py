"""Identifies the weights of bundle and level locator by their descriptions, without Keras."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumbar.errors import WrongSetting
from lumbar.spine.provenance import BundleIdentity, TrainedOn

BUNDLE_FILE = "bundle.json"
# Beside the package, both in a checkout and where installed.
SHIPPED = Path(__file__).parents[2] / "bundles" / "phantom"
CLASSIFIERS = ("condition", "severity")

FOLDER = Path(__file__).parent / "locator_weights"
LOCATOR_FILE = "locator.json"
DAMAGED = "locator: its files are missing or damaged; install this version again"
LOCATORS = ("sagittal", "axial", "border")


def stated_identity(folder: Path | None) -> BundleIdentity:
    """What ``bundle.json`` states (None: the shipped bundle's); the weights are not read.

    Raises:
        WrongSetting: the description cannot be read or lacks an entry.
    """
    try:
        return identity_of(
            json.loads(((folder or SHIPPED) / BUNDLE_FILE).read_text(encoding="utf-8"))
        )
    except OSError as error:
        raise WrongSetting(f"bundle: {BUNDLE_FILE} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongSetting(
            f"bundle: {BUNDLE_FILE} is damaged or lacks an entry; fetch the bundle again"
        ) from error


def identity_of(description: Mapping[str, Any]) -> BundleIdentity:
    """The identity that the content of ``bundle.json`` states.

    ``weights_sha256`` is the digest of the digests of the condition, severity and level locator
    weights.

    Raises:
        WrongSetting: the level locator's description is missing or damaged.
    """
    locator = read_locator_description(FOLDER)
    digests = "".join(description["networks"][kind]["sha256"] for kind in CLASSIFIERS)
    return BundleIdentity(
        name=str(description["name"]),
        version=str(description["version"]),
        weights_sha256=_sha256(digests + locator_sha256(locator)),
        trained_on=_weakest(TrainedOn(description["trained_on"]), locator),
        preprocessing_version=str(description["preprocessing_version"]),
    )


def read_locator_description(folder: Path) -> dict[str, dict[str, Any]]:
    """For each network of the level locator: weights file, sha256, points, training data, recipe.

    Raises:
        WrongSetting: ``locator.json`` is missing or damaged.
    """
    try:
        description = json.loads((folder / LOCATOR_FILE).read_text(encoding="utf-8"))
        return {
            kind: {**description[kind], "sha256": str(description[kind]["sha256"])}
            for kind in LOCATORS
            if kind in description
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongSetting(DAMAGED) from error


def locator_sha256(description: Mapping[str, Mapping[str, Any]]) -> str:
    """The digest of the digests of the level locator's networks, in the order of ``LOCATORS``.

    Raises:
        WrongSetting: a network is missing.
    """
    try:
        return _sha256("".join(description[kind]["sha256"] for kind in LOCATORS))
    except KeyError as error:
        raise WrongSetting(DAMAGED) from error


def _weakest(classifiers: TrainedOn, locator: Mapping[str, Mapping[str, Any]]) -> TrainedOn:
    """The weakest kind of data that the bundle's or the locator's networks were trained on.

    A severity is not a clinical result if its point comes from a network trained on phantoms.

    Raises:
        WrongSetting: the locator's description does not state what it was trained on.
    """
    try:
        locators = [TrainedOn(entry["trained_on"]) for entry in locator.values()]
    except (KeyError, ValueError) as error:
        raise WrongSetting(DAMAGED) from error
    return min(classifiers, *locators, key=list(TrainedOn).index)


def _sha256(digests: str) -> str:
    return hashlib.sha256(digests.encode("ascii")).hexdigest()
