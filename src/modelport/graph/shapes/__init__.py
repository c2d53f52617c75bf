"""Which dtype and shape every value has, as expressions over the named dimensions."""
