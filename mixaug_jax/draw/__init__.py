"""Figures and tables: numbers in, pictures out."""
