"""Scenes: pictures of shapes on textured ground, rendered here, with every pixel's concepts known."""
