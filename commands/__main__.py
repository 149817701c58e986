"""`python -m commands`: the same as `lumbar`, for a child process that must run this very interpreter."""

from commands import main

main()
