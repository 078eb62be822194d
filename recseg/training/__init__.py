"""Training: targets, losses, the loop and its checkpoints. Chapters 5, 7 and 8."""
