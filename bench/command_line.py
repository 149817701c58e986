"""CPU time that the command line takes to start: ``python -m bench.command_line``.

For comparison: the interpreter with an empty program. A busy machine distorts CPU time least.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from statistics import median

PROGRAM = ("-m", "commands")
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "lumbar --help": (*PROGRAM, "--help"),
    "lumbar --version": (*PROGRAM, "--version"),
    "lumbar worklist": (*PROGRAM, "worklist"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as home:
        cpu_seconds(home, (*PROGRAM, "db", "upgrade"))
        seconds = {
            name: median(cpu_seconds(home, arguments) for _ in range(rounds))
            for name, arguments in COMMANDS.items()
        }
    baseline = seconds["python -c pass"]
    print(f"CPU seconds, median of {rounds} rounds, and as a multiple of an empty program's")
    for name, duration in seconds.items():
        print(f"  {name:16} {duration:.3f} {duration / baseline:6.1f}")


def cpu_seconds(home: str, arguments: tuple[str, ...]) -> float:
    """User and system time of one execution."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"LUMBAR_HOME": home},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
