"""Annotations of other formats into those of a folder: `python -m mixaug_jax.data.convert coco|voc|trimaps -h`."""
