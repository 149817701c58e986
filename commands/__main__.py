"""`python -m commands`: as `lumbar`, for child processes that must use this interpreter."""

from commands import main

main()
