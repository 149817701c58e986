"""How this product names itself in what it makes, and is told by peers that are asked for it."""

MANUFACTURER = "lumbar-triage"
SERIES_NAME = "Lumbar triage."  # how the series description begins
SERIES_NUMBER = 8800  # higher than those of the scanner's series
