"""The model: weights and equations. Knows nothing of messages; needs torch."""
