"""Weights that come with the project: a folder a bundle."""
