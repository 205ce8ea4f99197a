"""Parses Kubernetes quantities to exact numbers, so that `1000m` equals `1`. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_FORM = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|[MGTPE]|[KMGTPE]i|e[+-]?[0-9]+)?")
# Beyond all amounts, and within the range of Decimal.
_MOST_EXPONENT = 1000
_POWERS = {prefix: power for power, prefix in enumerate("KMGTPE", 1)}


def amount(quantity: Any) -> Decimal | None:
    """Return the number that a quantity stands for; None for anything else."""
    match = _FORM.fullmatch(str(quantity))
    if not match:
        return None
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix.startswith("e"):
        exponent = max(-_MOST_EXPONENT, min(_MOST_EXPONENT, int(suffix[1:])))
        return number.scaleb(exponent)
    if suffix.endswith("i"):
        return number * Decimal(1024) ** _POWERS[suffix[0]]
    if suffix == "m":
        return number / 1000
    return number * Decimal(1000) ** _POWERS[suffix.upper()] if suffix else number
