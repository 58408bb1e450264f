//! Whether a change would exceed a quota (upstream: `ZooKeeperServer.checkQuota`).
//!
//! Judged by the limits and the usage that have been applied: several creates of one multi, or in flight, may exceed a
//! limit together, as they may upstream.

use crate::tree::{QuotaRef, Track};
use crate::wire::ErrorCode;

/// Checks `count_change` znodes and `bytes_change` bytes more. Soft limits refuse nothing.
pub fn check(quota: &QuotaRef<'_>, count_change: i64, bytes_change: i64) -> Result<(), ErrorCode> {
    let limits = Track::parse(quota.limits)?;
    let with_count = count_change != 0 && (limits.count() > -1 || limits.count_hard_limit() > -1);
    let with_bytes = bytes_change != 0 && (limits.bytes() > -1 || limits.byte_hard_limit() > -1);
    let Some(stats) = quota.stats.filter(|_| with_count || with_bytes) else { return Ok(()) };
    let usage = Track::parse(stats)?;
    let over = |hard: i64, used: i64, change: i64| hard > -1 && used.saturating_add(change) > hard;
    if with_count && over(limits.count_hard_limit(), usage.count(), count_change)
        || with_bytes && over(limits.byte_hard_limit(), usage.bytes(), bytes_change)
    {
        return Err(ErrorCode::QUOTA_EXCEEDED);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limits: &str, usage: &str, count_change: i64, bytes_change: i64) -> Result<(), ErrorCode> {
        let quota = QuotaRef { path: "/a", limits: Some(limits.as_bytes()), stats: Some(Some(usage.as_bytes())) };
        super::check(&quota, count_change, bytes_change)
    }

    #[test]
    fn without_a_usage_node_everything_passes_and_with_a_null_one_nothing_that_is_limited() {
        let quota = |stats| QuotaRef { path: "/a", limits: Some(b"countHardLimit=1"), stats };
        assert_eq!(super::check(&quota(None), 5, 5), Ok(()));
        assert_eq!(super::check(&quota(Some(None)), 1, 0), Err(ErrorCode::MARSHALLING_ERROR));
        assert_eq!(super::check(&quota(Some(None)), 0, 5), Ok(()), "bytes are not limited");
    }

    #[test]
    fn only_hard_limits_refuse() {
        let limits = "count=1,bytes=1=;byteHardLimit=10;countHardLimit=2";
        assert_eq!(check(limits, "count=1,bytes=9", 1, 1), Ok(()));
        assert_eq!(check(limits, "count=2,bytes=9", 1, 1), Err(ErrorCode::QUOTA_EXCEEDED));
        assert_eq!(check(limits, "count=1,bytes=9", 1, 2), Err(ErrorCode::QUOTA_EXCEEDED));
        assert_eq!(check(limits, "count=9,bytes=20", 0, -5), Err(ErrorCode::QUOTA_EXCEEDED), "still above it");
        assert_eq!(check(limits, "count=9,bytes=20", 0, -10), Ok(()));
        assert_eq!(check(limits, "count=9,bytes=20", 0, 0), Ok(()), "as long as before");
        assert_eq!(check("count=1,bytes=1", "count=9,bytes=9", 1, 1), Ok(()), "soft limits only");
        assert_eq!(check("junk", "", 0, 0), Err(ErrorCode::MARSHALLING_ERROR));
    }
}
