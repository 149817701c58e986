"""The number of hostile inputs."""

from tests.hostile.archives import INPUTS
from tests.hostile.associations import PEERS
from tests.hostile.datasets import DATASETS
from tests.hostile.monitored import report
from tests.hostile.pixels import FILES
from tests.hostile.texts import TEXTS


def test_there_are_more_than_400_hostile_inputs_with_unique_names():
    kinds = {
        "datasets": [one.name for one in DATASETS],
        "associations": [one.name for one in PEERS],
        "pixels": [one.name for one in FILES],
        "folders and zips": [one.name for one in INPUTS],
        "texts": list(TEXTS),
    }
    report(", ".join(f"{len(names)} {kind}" for kind, names in kinds.items()))
    for names in kinds.values():
        assert len(set(names)) == len(names)
    assert sum(map(len, kinds.values())) > 400
