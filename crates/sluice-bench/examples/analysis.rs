//! Asks analysis without the `sluice` binary: `cargo run --release -p sluice-bench --example analysis -- 1`.

use sluice_bench::{BenchError, analysis};

fn main() -> Result<(), BenchError> {
    let scale = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0.01);
    print!("{}", analysis(scale, 1)?.table());
    Ok(())
}
