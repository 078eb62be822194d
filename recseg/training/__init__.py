"""From label maps to trained weights: targets, losses, the loop and what keeps it. Chapters 5, 7 and 8."""
