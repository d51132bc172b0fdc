"""Rows that cannot be used: few are left out and told, more are an error."""

import logging

from cliperase.errors import CliperaseError

BROKEN_PERCENT = 1.0  # of the rows, unless a setting says otherwise
log = logging.getLogger("cliperase")


def checked_percent(value):
    """A limit of one's own on broken rows, in percent."""
    if not 0 <= value <= 100:
        raise CliperaseError(f"broken_percent is {value}; give a number from 0 to 100")
    return value


def leave_out(reasons, count, broken_percent, place):
    """Tell that of `count` rows those of `reasons`, {row: why it cannot be used}, are left out, or are too many.

    `place(row)`: where a row stands, for the message.
    """
    if not reasons:
        return
    row, reason = next(iter(reasons.items()))
    said = f"{place(row)}: {reason}"
    if len(reasons) > broken_percent / 100 * count or len(reasons) == count:
        raise CliperaseError(
            f"{said}; {len(reasons)} of {count} rows are broken: mend them, leave them out, or allow more than "
            f"broken_percent={broken_percent:g}"
        )
    log.warning("%s; %d of %d rows are left out as broken", said, len(reasons), count)
