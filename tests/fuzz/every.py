"""All targets."""

from __future__ import annotations

from fuzz import answers, blocks, bodies, frames, heads, proxied, replies, targets, tokens, yaml_files

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
        blocks.TARGET,
        frames.CLIENT,
        frames.SERVICE,
    )
}
