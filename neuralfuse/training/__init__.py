"""Everything that is trained or fitted: networks, generators, transforms of one chip."""
