"""The networks, and the layers that they are made of. Chapters 2 to 4 of the book."""
