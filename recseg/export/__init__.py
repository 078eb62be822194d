"""Networks as ONNX graphs, in 32 bits and in 8, and what runs them without torch."""
