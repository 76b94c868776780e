"""The terminal interface. See ``app``."""

import os

# Textual draws at most so often a second, and a key waits for the next drawing: its default of 60
# would cost every key up to 17 ms. Nothing is drawn while nothing changes.
os.environ.setdefault("TEXTUAL_FPS", "240")
