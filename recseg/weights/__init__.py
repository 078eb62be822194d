"""Trained weights: files, the published ones by name, and the Hugging Face Hub."""
