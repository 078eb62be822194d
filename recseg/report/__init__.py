"""A report on a network: one HTML page that says what it can, what it cannot, and what to try next."""
