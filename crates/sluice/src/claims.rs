//! Claims as written → claims as analysis asks them.

use anyhow::Context;
use sluice_kinds::LoadedObject;
use sluice_report::Claim;

/// Reads one ConnectivityClaim.
pub(crate) fn read(object: &LoadedObject) -> anyhow::Result<Claim> {
    sluice_kinds::read_claim(&object.value)
        .map_err(|errors| {
            let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::Error::msg(list.join("; "))
        })
        .with_context(|| {
            format!("{}:{}: ConnectivityClaim {}", object.file, object.lines.line(), object.name)
        })
}
