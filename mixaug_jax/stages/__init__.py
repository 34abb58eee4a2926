"""The stages of a run, a file each: from one working directory to files."""
