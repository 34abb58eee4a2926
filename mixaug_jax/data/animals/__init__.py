"""Animals of eight blocks, rendered here, whose every attribute is known and may be biased."""
