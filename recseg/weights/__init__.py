"""Trained weights on disk, and the published ones by name."""
