//! Exit codes and the one line that an error is.

use std::process::ExitCode;

/// How a command ended. Where several apply, 2 goes before 1 before 3 before 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Yes; allowed; holds; as expected.
    Yes,
    /// No; denied; does not hold.
    No,
    /// The job could not be done.
    Failed,
    /// Undecided.
    Undecided,
    /// What a command inside a pod ended with.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Yes => 0,
            Exit::No => 1,
            Exit::Failed => 2,
            Exit::Undecided => 3,
            Exit::Code(code) => code,
        })
    }
}

/// Prints an error and its causes as one line.
pub(crate) fn report(error: &anyhow::Error) {
    let mut line = String::new();
    for cause in error.chain() {
        let text = match cause.downcast_ref::<kube::Error>() {
            // the API's own sentence; kube's text repeats the whole Status behind it
            Some(kube::Error::Api(status)) => status.message.clone(),
            _ => cause.to_string(),
        };
        if line.contains(&text) {
            continue; // an outer error that already quotes its cause
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
        if matches!(cause.downcast_ref::<kube::Error>(), Some(kube::Error::Api(_))) {
            break;
        }
    }
    eprintln!("error: {line}");
}
