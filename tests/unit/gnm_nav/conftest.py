"""A small world and a network that knows it from images alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
