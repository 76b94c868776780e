"""The embedded model: its vocabulary and weights, as package data."""
