"""`lumbar` with stub networks, for its child processes too: ``python -m tests.stub_program up``.

The analysis of a study whose UID names a file in the folder ``held`` waits until the file is gone.
``TESTS_READING`` stubs the whole reading (``tests.faults.stub_reading``).
"""

import os
import sys
import time
from pathlib import Path

import commands

HELD = Path("held")
ANALYSING = ("analyse", "classify", "evaluate", "sweep", "worker")


def stub_networks():
    from commands import services
    from tests.faults import stub_reading
    from tests.stub_networks import StubNetworks
    from worker import analysis, preview

    services.load_networks = lambda settings: StubNetworks  # type: ignore[assignment]
    if "TESTS_READING" in os.environ:
        stub_reading.replace()
    analysis.analyse = hold(analysis.analyse)
    preview.analyse = hold(preview.analyse)


def hold(analyse):
    def analyse_when_released(instances, networks):
        while (HELD / instances[0].header.StudyInstanceUID).exists():
            time.sleep(0.05)
        return analyse(instances, networks)

    return analyse_when_released


def stub_children():
    from commands import supervisor

    supervisor.PROGRAM = (sys.executable, "-m", "tests.stub_program")


if __name__ == "__main__":
    # other commands start as fast as they are
    if "up" in sys.argv[1:2]:
        stub_children()
    elif set(ANALYSING) & set(sys.argv[1:2]):
        stub_networks()
    elif "deliver" in sys.argv[1:2]:
        from tests.faults import stub_reading

        stub_reading.delay_responses()
    commands.main()
