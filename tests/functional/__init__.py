"""A real daemon on loopback, real services behind it, and clients that write their own bytes."""
