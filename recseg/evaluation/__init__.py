"""Scores, how they are stored, and whether they are found again. Chapter 9."""
