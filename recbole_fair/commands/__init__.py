"""Commands of the command line that do not start from a model, and what all commands share."""
