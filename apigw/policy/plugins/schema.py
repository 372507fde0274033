"""The keys of plugins."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, choice, duration, item, list_of, map_of, named, text
from apigw.policy.plugins.model import Plugin, Plugins, Use

WITH: Rule = {
    "type": "dict",
    "meta": {
        "doc": "What the class gets: a map, checked by the schema of the class.",
        "plain": True,
        "default": "none",
    },
}

PLUGIN: Rule = {
    "policy": text(
        "The class: `module:Class`, `./file.py:Class` beside the YAML, or the name of an entry point of "
        "`apigw.plugins`.",
        "plugin",
        required=True,
    ),
    "with": WITH,
    "on_error": choice(
        "What becomes of a request for which it fails: 500 `policy_failed`, or it goes on without the plugin.",
        "closed",
        "open",
    ),
    "timeout": duration("How long one call may wait.", "1ms", "1m"),
}

PLUGIN_MEANT = {
    **dict.fromkeys(("class", "file"), "policy"),
    **dict.fromkeys(("config", "options", "settings"), "'with'"),
}

PLUGINS: Rule = {
    "plugins": named(
        "[Plugins](plugins.md): policies of your own in Python, by name.",
        map_of("", Plugin, PLUGIN, like="{policy: ./file.py:Class}", meant=PLUGIN_MEANT),
    ),
}


def use(whose: str) -> Rule:
    return {"use": list_of(f"The plugins {whose}, in their order.", item("plugin name"))}


MEANT = {
    **dict.fromkeys(("plugin", "plugins", "middleware", "middlewares"), "'use', with names of plugins"),
    **dict.fromkeys(("brotli", "compress", "compression", "gzip"), "'use', with the plugin compression"),
}

KEYS = (
    Keys((), Plugins, PLUGINS),
    Keys(("gateway",), Use, use("of all routes, before those of services and routes"), MEANT),
    Keys(("services",), Use, use("of the routes to the service, before those of the route"), MEANT),
    Keys(("routes",), Use, use("of the route"), MEANT),
)
