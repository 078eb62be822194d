"""What only the chapters of the book use: checkers of exercises, the playground, a contact sheet."""
