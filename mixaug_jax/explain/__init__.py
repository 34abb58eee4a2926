"""Methods and scores on many images."""
