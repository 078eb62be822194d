"""Export networks as ONNX graphs, in 32 or 8 bits, and run them without torch."""
