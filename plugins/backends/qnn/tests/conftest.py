from __future__ import annotations

import os

# before the first probe, which the suite makes once
os.environ["QNN_HTP_EMULATION"] = "1"
