"""Inference: from a model and tokens to more tokens. Knows nothing of messages; needs torch."""
