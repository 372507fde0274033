"""The list of all policies."""

from __future__ import annotations

from apigw.contract.policy import Policy
from apigw.policy.auth.policy import AuthPolicy
from apigw.policy.check.policy import CheckPolicy
from apigw.policy.cors.policy import CorsPolicy
from apigw.policy.denials.policy import DenialsPolicy
from apigw.policy.limits.policy import LimitsPolicy
from apigw.policy.maintenance.policy import MaintenancePolicy
from apigw.policy.networks.policy import NetworksPolicy
from apigw.policy.oauth.policy import OAuthPolicy
from apigw.policy.plugins.policy import PluginsPolicy
from apigw.policy.redirect.policy import RedirectPolicy
from apigw.policy.respond.policy import RespondPolicy
from apigw.policy.split.policy import SplitPolicy
from apigw.policy.tracing.policy import TracingPolicy
from apigw.policy.transform.policy import TransformPolicy

POLICIES: tuple[type[Policy], ...] = (
    TracingPolicy,
    NetworksPolicy,
    DenialsPolicy,
    CorsPolicy,
    OAuthPolicy,
    AuthPolicy,
    CheckPolicy,
    LimitsPolicy,
    TransformPolicy,
    SplitPolicy,
    RedirectPolicy,
    RespondPolicy,
    MaintenancePolicy,
    PluginsPolicy,
)
"""In the order in which they are made, started and prepared. Each can use what those before it have prepared."""
