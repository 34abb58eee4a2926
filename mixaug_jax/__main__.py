"""`python -m mixaug_jax` is the command `mixaug`."""

from mixaug_jax.main import entry

entry()
