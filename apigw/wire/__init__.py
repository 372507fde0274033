"""Bytes to messages and back: HTTP/1.1 and HTTP/2 towards clients, pooled HTTP/1.1 towards upstreams.

This package knows HTTP and Twisted, and nothing of gateways: another program could be served with it.
"""
