"""What only the chapters of the book use: checkers of exercises, diagrams, the playground."""
