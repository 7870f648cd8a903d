//! What this process holds and has used, from /proc.

use crate::BenchError;

const MIB: f64 = 1024.0;

/// Resident memory now, in MiB.
pub(crate) fn resident() -> Result<f64, BenchError> {
    field("VmRSS:")
}

/// The most resident memory so far, in MiB.
pub(crate) fn peak() -> Result<f64, BenchError> {
    field("VmHWM:")
}

/// The time that this thread has had a processor so far, in seconds; the kernel counts it at every tick, so that only long
/// differences mean much. `None` if the kernel does not say.
pub(crate) fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

fn field(name: &'static str) -> Result<f64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(BenchError::Status)?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|text| text.trim().parse().ok());
    kib.map(|kib: f64| kib / MIB).ok_or(BenchError::NoField(name))
}
