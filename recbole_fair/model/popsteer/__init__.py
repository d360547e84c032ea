"""PopSteer: sparse autoencoder, neurons, steering."""
