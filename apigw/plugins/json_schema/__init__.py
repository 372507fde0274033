"""The plugin ``json_schema``: bodies of requests must be valid by a JSON Schema (docs/reference/json-schema.md)."""

from apigw.plugins.json_schema.plugin import JSONSchema as JSONSchema
