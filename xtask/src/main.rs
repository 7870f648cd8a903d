//! Developer commands: `cargo xtask tidy` checks what the compiler does not.
#![forbid(unsafe_code)]

mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("tidy") => tidy::run(),
        other => {
            if let Some(other) = other {
                eprintln!("error: no command {other:?}");
            }
            eprintln!(
                "usage: cargo xtask COMMAND\n\n  tidy   floors between crates, size of files, things that must not be in sources"
            );
            ExitCode::from(2)
        }
    }
}
