"""Synthetic lumbar-spine MR studies (phantoms) with known truth."""

from lumbar.phantoms.dataset import write_data_set
from lumbar.phantoms.study import write_study
from lumbar.phantoms.truth import PhantomTruth

__all__ = ["PhantomTruth", "write_data_set", "write_study"]
