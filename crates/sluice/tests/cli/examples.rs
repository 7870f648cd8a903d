//! docs/examples/commands: every ```console block is what the commands in it print. `UPDATE_GOLDENS=1` writes them anew. Blocks
//! that need a lab are run by the lab's tests.

use std::path::Path;

use crate::transcript::{self, Run, rendered};
use crate::{isolated, project};

#[test]
fn the_pages_of_commands_show_what_is_printed() {
    let mut commands = 0;
    let program = Path::new(env!("CARGO_BIN_EXE_sluice"));
    let different = transcript::compare(&project(), |_, page| {
        commands += page.lines().filter(|line| line.starts_with("$ sluice ")).count();
        rendered(page, program, |info| -> Option<Run<'_>> {
            info.is_empty().then(|| -> Run<'_> {
                Box::new(|mut command| isolated(&mut command).output().expect("the binary runs"))
            })
        })
    });
    assert!(commands > 60, "the pages are gone");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
