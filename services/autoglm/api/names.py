"""Decides which resource owns a model name. Pure; operator and gateway call the same functions.

Of the resources that declare a name and may claim it, the oldest owns it; of two of the same age,
the first by namespace and name. Which namespaces may claim a name is a setting of operator and
gateway: a rule reserves the names that match its patterns for the namespaces that match its others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from pydantic import AfterValidator

Seniority = tuple[str, str, str]
_FORM: Final = '[{"names": ["gpt-*"], "namespaces": ["platform"]}]'


class NameRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Patterns with `*`, `?` and `[abc]`; they are case-sensitive, and `*` matches `/` as well."""

    names: tuple[str, ...]
    """Model names, aliases and adapters that the rule reserves."""
    namespaces: tuple[str, ...]
    """Namespaces whose resources may claim them; empty: no resource may."""


@dataclass(frozen=True, slots=True)
class NameRules:
    """All rules; any namespace may claim a name that no rule reserves."""

    rules: tuple[NameRule, ...] = ()

    def may_claim(self, namespace: str, name: str) -> bool:
        """Return whether no rule reserves the name, or a rule reserves it for the namespace."""
        reserving = [rule for rule in self.rules if _matches(name, rule.names)]
        return not reserving or any(_matches(namespace, rule.namespaces) for rule in reserving)


NO_RULES: Final = NameRules()


def read_rules(text: str) -> NameRules:
    """Parse rules from JSON; an empty text has none. Raises ValueError."""
    if not text.strip():
        return NO_RULES
    try:
        return NameRules(msgspec.json.decode(text, type=tuple[NameRule, ...]))
    except msgspec.MsgspecError as error:
        raise ValueError(f"is not JSON of the form {_FORM}: {error}") from error


def checked_rules(text: str) -> str:
    """Return the text if it contains valid rules. Raises ValueError."""
    read_rules(text)
    return text


# The type of a setting, validated when settings are loaded.
ModelNameRules = Annotated[str, AfterValidator(checked_rules)]


class Claimant(Protocol):
    """A resource with the names that it declares."""

    @property
    def namespace(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def seniority(self) -> Any: ...


C = TypeVar("C", bound=Claimant)


def owner_of(name: str, claimants: Iterable[C], rules: NameRules) -> C | None:
    """Return the owner of a name among the claimants that declare it."""
    allowed = (c for c in claimants if rules.may_claim(c.namespace, name))
    return min(allowed, key=lambda claimant: claimant.seniority, default=None)


def owners_of(claimants: Iterable[C], rules: NameRules) -> dict[str, C]:
    """Return the owner of each declared name that a claimant may claim."""
    owners: dict[str, C] = {}
    for claimant in sorted(claimants, key=lambda claimant: claimant.seniority):
        for name in claimant.names:
            if name not in owners and rules.may_claim(claimant.namespace, name):
                owners[name] = claimant
    return owners


def seniority(created: str, namespace: str, name: str) -> Seniority:
    """Return a sort key, smallest for the oldest. `created` is the API server's timestamp."""
    return (created, namespace, name)


def declared_names(
    resource: str, served: str | None, aliases: Iterable[str], adapters: Iterable[str]
) -> tuple[str, ...]:
    """Return the distinct names that a resource declares: its own, then aliases and adapters."""
    names = (served or resource, *aliases, *adapters)
    return tuple(dict.fromkeys(name for name in names if name))


def _matches(value: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
