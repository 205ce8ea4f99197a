"""ServiceAccount: pods run as an account of their own that may do nothing. Pure."""

from __future__ import annotations

from autoglm.operator.children.metadata import Body, Context, child


def service_account(context: Context) -> Body:
    return child(context, "v1", "ServiceAccount") | {"automountServiceAccountToken": False}
