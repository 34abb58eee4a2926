"""Whole published experiments, each named by what it asks."""
