"""Tables and figures of what the stages found."""
