"""The directory that `save` writes: one program, one copy of the weights, one manifest."""
