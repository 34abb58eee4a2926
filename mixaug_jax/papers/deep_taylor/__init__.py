"""What deep Taylor decomposition really does (Sixt and Landgraf 2022): roots, regions, and explanations that show anything."""

from mixaug_jax.papers.deep_taylor.taylor_stage import KEYS, STAGE

__all__ = ["KEYS", "STAGE"]
