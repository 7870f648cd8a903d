//! Results for programs.

use std::io::{self, Write};

use serde::Serialize;

/// The forms that programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Yaml,
}

/// Writes a typed object.
pub(crate) fn write(out: &mut impl Write, form: Form, object: &impl Serialize) -> io::Result<()> {
    match form {
        Form::Json => {
            serde_json::to_writer_pretty(&mut *out, object)?;
            writeln!(out)
        }
        Form::Yaml => {
            let text = serde_yaml_ng::to_string(object).map_err(io::Error::other)?;
            out.write_all(text.as_bytes())
        }
    }
}

/// Prints a typed object. Whoever reads us may stop at any time.
pub(crate) fn print(form: Form, object: &impl Serialize) {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let _ = write(&mut out, form, object).and_then(|()| out.flush());
}
