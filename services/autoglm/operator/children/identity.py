"""ServiceAccount: pods run as an account of their own that may do nothing. Pure.

Its name has a suffix, so that a resource cannot be named after an account that exists.
"""

from __future__ import annotations

from autoglm.operator.children.metadata import Body, Context, child

SERVICE_ACCOUNT = "ServiceAccount"


def account_name(resource: str) -> str:
    """At most 62 characters, since a resource's name has at most 52."""
    return f"{resource}-inference"


def service_account(context: Context) -> Body:
    body = child(context, "v1", SERVICE_ACCOUNT, account_name(context.name))
    return body | {"automountServiceAccountToken": False}
