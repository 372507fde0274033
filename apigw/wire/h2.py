from __future__ import annotations
class HTTP2Channel:
    pass
