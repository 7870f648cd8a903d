//! Developer commands: `cargo xtask tidy` checks what the compiler does not, `cargo xtask soak` compares engine and law for
//! long.
#![forbid(unsafe_code)]

mod soak;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("tidy") => tidy::run(),
        Some("soak") => soak::run(arguments),
        other => {
            if let Some(other) = other {
                eprintln!("error: no command {other:?}");
            }
            eprintln!(
                "usage: cargo xtask COMMAND\n\n  tidy   floors between crates, size of files, things that must not be in sources\n  soak   [--cases N] [--seed S] differential tests of the engine until N comparisons are done (10,000,000)"
            );
            ExitCode::from(2)
        }
    }
}
