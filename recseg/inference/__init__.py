"""Inference: predictions for images, large images in tiles, and videos; fusion of the steps into one label map."""
