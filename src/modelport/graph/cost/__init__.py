"""What a portable graph costs at given sizes: operations, weights, memory."""
