"""Which of its attributes a network goes by (Sixt et al. 2022)."""
