"""All targets."""

from __future__ import annotations

from fuzz import answers, bodies, heads, proxied, replies, targets, tokens, yaml_files

TARGETS = {
    target.name: target
    for target in (
        heads.TARGET,
        bodies.TARGET,
        targets.TARGET,
        proxied.TARGET,
        tokens.TARGET,
        yaml_files.TARGET,
        replies.TARGET,
        answers.TARGET,
    )
}
