"""ServiceAccount: an account of the pods without any rights. Pure.

Its name has a suffix, so that a resource cannot be named like an existing account.
"""

from __future__ import annotations

from autoglm.operator.children.metadata import Body, Context, child

SERVICE_ACCOUNT = "ServiceAccount"


def account_name(resource: str) -> str:
    """Return the account's name: at most 62 characters, since a resource's name has at most 52."""
    return f"{resource}-inference"


def service_account(context: Context) -> Body:
    body = child(context, "v1", SERVICE_ACCOUNT, account_name(context.name))
    return body | {"automountServiceAccountToken": False}
