"""How numbers are written for people: bytes with a binary unit, counts with thousands separated."""

__all__ = ["bytes_text", "count_text"]

_UNITS = ("B", "KB", "MB", "GB", "TB")


def bytes_text(count: float | None) -> str:
    """1536 as '1.5 KB'; a unit is 1024 of the one before. None, no limit, as 'none'."""
    if count is None:
        return "none"
    amount = float(count)
    unit = 0
    while abs(amount) >= 1024 and unit < len(_UNITS) - 1:
        amount /= 1024
        unit += 1
    digits = 0 if unit == 0 or amount == int(amount) else 1
    return f"{amount:.{digits}f} {_UNITS[unit]}"


def count_text(count: float | None) -> str:
    """12345 as '12,345'. None, no limit, as 'none'."""
    return "none" if count is None else f"{count:,.0f}"
