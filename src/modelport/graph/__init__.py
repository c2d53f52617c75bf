"""The portable graph: its metadata, its normal form, its layers and shapes. Knows ONNX, knows no framework."""
