"""The terminal interface. See ``app``."""

import os

# A key waits for Textual's next frame: at its default of 60 frames a second, up to 17 ms.
# Nothing is drawn while nothing changes.
os.environ.setdefault("TEXTUAL_FPS", "240")
