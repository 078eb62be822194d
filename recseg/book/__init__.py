"""Code used only by the book: exercise checkers, diagrams, the playground, measurements."""
