"""Round markers of 12 bits: labels, a renderer with derivatives, and pictures of another domain to read them in."""
