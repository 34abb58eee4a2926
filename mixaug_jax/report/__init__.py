"""The page of a run and of a study, from files alone."""

from mixaug_jax.report.writing import STAGE, write_report, write_study

__all__ = ["STAGE", "write_report", "write_study"]
