"""The number of hostile inputs."""

from tests.hostile.archives import INPUTS
from tests.hostile.associations import PEERS
from tests.hostile.datasets import DATASETS
from tests.hostile.monitored import report
from tests.hostile.pixels import FILES
from tests.hostile.texts import TEXTS


def test_there_are_more_than_400_hostile_inputs_with_unique_names():
    kinds = {
        "datasets": [case.name for case in DATASETS],
        "associations": [case.name for case in PEERS],
        "pixels": [case.name for case in FILES],
        "folders and zips": [case.name for case in INPUTS],
        "texts": list(TEXTS),
    }
    report(", ".join(f"{len(names)} {kind}" for kind, names in kinds.items()))
    for names in kinds.values():
        assert len(set(names)) == len(names)
    assert sum(map(len, kinds.values())) > 400
