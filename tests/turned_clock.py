"""Turns the clock of real processes, and of nothing else: ``turned_clock.c`` beneath them."""

import subprocess
from pathlib import Path


class TurnedClock:
    """The clock of the processes that run in ``environment``; it can be turned as they run."""

    def __init__(self, folder: Path) -> None:
        library = folder / "turned_clock.so"
        options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        source = Path(__file__).with_name("turned_clock.c")
        subprocess.run(["cc", *options, "-o", str(library), str(source), "-ldl"], check=True)
        self._file = folder / "turned_s"
        self.turn(0)
        self.environment = {"LD_PRELOAD": str(library), "TURNED_CLOCK_FILE": str(self._file)}

    def turn(self, seconds: int) -> None:
        """Sets by how much the clock is wrong."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)
