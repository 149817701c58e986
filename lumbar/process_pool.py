"""Child processes for work on many files."""

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process


def process_pool(processes: int | None = None) -> ProcessPoolExecutor:
    """So many processes, or one per core, of one thread each; they end with this process.

    They are started anew, because TensorFlow and OpenCV survive no fork.
    """
    return ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn"), _begin)


def _begin() -> None:
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """A pool's process waits for work for ever if its parent was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
