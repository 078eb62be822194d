"""From a trained network to an answer: one image, a video, the steps fused into one label map."""
