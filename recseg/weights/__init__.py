"""Trained weights on disk, the published ones by name, and those of the Hugging Face Hub."""
