//! Pods that do not exist yet (`futurePods`, semantics 8.3).
use crate::claim::Claim;
use crate::snapshot::Snapshot;
use sluice_report::{ClaimResult, ClaimState};
pub(crate) fn judge(_snapshot: &Snapshot, _claim: &Claim, mut present: ClaimResult) -> ClaimResult {
    present.state = ClaimState::Undecided;
    present.missing.push(
        "pods that do not exist yet are not judged; say futurePods: false to ask about present ones".into(),
    );
    present
}
