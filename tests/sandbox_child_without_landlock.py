"""``tests.sandbox_child`` on a kernel without Landlock."""

from lumbar import confinement
from lumbar.sandbox import serve
from tests.sandbox_child import respond

if __name__ == "__main__":
    confinement._forbid_writing = lambda: False
    serve(respond, seconds=1, memory=64 * 2**20)
