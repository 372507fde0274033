"""HTTP/1.1 and HTTP/2, as server and as pooled client: bytes to messages and back.

This package depends on HTTP and Twisted only, and has nothing of gateways: another program could use it.
"""
