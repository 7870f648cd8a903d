//! JUnit XML, as build servers read it.

use std::io::{self, Write};

use super::text::xml;

/// One test of a suite.
pub(crate) struct Case {
    /// What the test is of: a file, a policy.
    pub(crate) class: String,
    /// Its name.
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

/// How it went.
pub(crate) enum Outcome {
    /// It passed; what is worth saying.
    Passed(String),
    /// It failed: in short, and in full.
    Failed { message: String, detail: String },
    /// It could not be decided.
    Undecided(String),
}

/// Writes a suite.
pub(crate) fn write(out: &mut impl Write, suite: &str, cases: &[Case]) -> io::Result<()> {
    let count = |wanted: fn(&Outcome) -> bool| cases.iter().filter(|c| wanted(&c.outcome)).count();
    let failures = count(|o| matches!(o, Outcome::Failed { .. }));
    let errors = count(|o| matches!(o, Outcome::Undecided(_)));
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    let totals = format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"", cases.len());
    writeln!(out, "<testsuites {totals}>")?;
    writeln!(out, "  <testsuite name=\"{}\" {totals} skipped=\"0\">", xml(suite))?;
    for case in cases {
        write!(out, "    <testcase classname=\"{}\" name=\"{}\"", xml(&case.class), xml(&case.name))?;
        match &case.outcome {
            Outcome::Passed(text) if text.is_empty() => writeln!(out, "/>")?,
            Outcome::Passed(text) => {
                writeln!(out, "><system-out>{}</system-out></testcase>", xml(text))?;
            }
            Outcome::Failed { message, detail } => {
                writeln!(out, "><failure message=\"{}\">{}</failure></testcase>", xml(message), xml(detail))?
            }
            Outcome::Undecided(text) => {
                writeln!(
                    out,
                    "><error type=\"undecided\" message=\"{0}\">{0}</error></testcase>",
                    xml(text)
                )?;
            }
        }
    }
    writeln!(out, "  </testsuite>\n</testsuites>")
}
