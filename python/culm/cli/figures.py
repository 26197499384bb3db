"""How numbers are written for people: bytes with a binary unit, counts with thousands separated."""

__all__ = ["bytes_text", "count_text", "duration_text", "ratio_text"]

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


def duration_text(nanoseconds: float) -> str:
    """1234 as '1.2 µs': two significant digits below ten of a unit, three above; a unit is 1000 of the one before."""
    amount, unit = float(nanoseconds), 0
    units = ("ns", "µs", "ms", "s")
    while abs(amount) >= 999.5 and unit < len(units) - 1:
        amount /= 1000
        unit += 1
    digits = 1 if abs(amount) < 9.95 and amount != round(amount) else 0
    return f"{amount:.{digits}f} {units[unit]}"


def ratio_text(ratio: float) -> str:
    """1.04 as '1.04', 3.7 as '3.7', 41.2 as '41'."""
    digits = 2 if ratio < 1.995 else 1 if ratio < 9.95 else 0
    return f"{ratio:,.{digits}f}"
