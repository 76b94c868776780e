"""The model: weights and equations. Works below the level of messages; needs torch."""
