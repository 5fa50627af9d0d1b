"""Whether the clocks agree. Pure."""

from __future__ import annotations

from midstream.check.result import Result, fail, ok, warn

WARN_S = 1.0
FAIL_S = 60.0
"""Days of exhaust, tokens' expiry and the accounting go by clocks; a minute apart, they say different things."""

_CHANGE = "let chrony or systemd-timesyncd set the clocks of both machines (`timedatectl set-ntp true`)"


def judge_skew(check: str, skew_s: float, beyond_s: float = 0.0) -> Result:
    """Judge by how much another clock is ahead of ours (behind: negative), known to within ``beyond_s``."""
    least_s = max(0.0, abs(skew_s) - beyond_s)
    word = "ahead of" if skew_s > 0 else "behind"
    if least_s > FAIL_S:
        return fail(check, f"its clock is {abs(skew_s):.1f} s {word} ours", _CHANGE)
    if least_s > WARN_S:
        return warn(check, f"its clock is {abs(skew_s):.1f} s {word} ours", _CHANGE)
    return ok(check, f"within {max(abs(skew_s), beyond_s):.1f} s of ours")
