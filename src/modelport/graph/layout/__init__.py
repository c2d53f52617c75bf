"""Which order of axes every value has: channels last where the target computes so, transposes only at the edges."""
