"""A report on a network: one HTML page that shows where it does well, where it fails, and what to try next."""
