"""What the data is: interactions, sequences, popularity, item and user groups, synthetic profiles."""
