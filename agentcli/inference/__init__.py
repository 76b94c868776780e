"""Inference: generates tokens with a model. Works below the level of messages; needs torch."""
