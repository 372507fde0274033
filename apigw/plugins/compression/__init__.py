"""The plugin ``compression``: answers are compressed for clients that take it (docs/reference/compression.md)."""

from apigw.plugins.compression.plugin import Compression as Compression
