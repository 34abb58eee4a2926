"""Spoken words: recordings to log-mel spectrograms."""
