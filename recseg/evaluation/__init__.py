"""Metrics, stored results, and their verification. Chapter 9."""
