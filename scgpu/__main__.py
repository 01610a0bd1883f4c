"""``python -m scgpu``."""

import sys

from scgpu.cli import main

sys.exit(main())
