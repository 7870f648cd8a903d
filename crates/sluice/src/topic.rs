//! `sluice help SL1021`: what a code means, without a network.

use anyhow::bail;
use sluice_report::{Code, Severity};

use crate::args::{self, AnswerOutput};
use crate::nearest;
use crate::render::data::{self, Form};

/// The pages of docs/lint.
const PAGES: [(&str, &str); 42] = [
    ("SL1001", include_str!("../../../docs/lint/SL1001.md")),
    ("SL1002", include_str!("../../../docs/lint/SL1002.md")),
    ("SL1003", include_str!("../../../docs/lint/SL1003.md")),
    ("SL1004", include_str!("../../../docs/lint/SL1004.md")),
    ("SL1005", include_str!("../../../docs/lint/SL1005.md")),
    ("SL1006", include_str!("../../../docs/lint/SL1006.md")),
    ("SL1010", include_str!("../../../docs/lint/SL1010.md")),
    ("SL1011", include_str!("../../../docs/lint/SL1011.md")),
    ("SL1012", include_str!("../../../docs/lint/SL1012.md")),
    ("SL1013", include_str!("../../../docs/lint/SL1013.md")),
    ("SL1014", include_str!("../../../docs/lint/SL1014.md")),
    ("SL1015", include_str!("../../../docs/lint/SL1015.md")),
    ("SL1016", include_str!("../../../docs/lint/SL1016.md")),
    ("SL1017", include_str!("../../../docs/lint/SL1017.md")),
    ("SL1018", include_str!("../../../docs/lint/SL1018.md")),
    ("SL1021", include_str!("../../../docs/lint/SL1021.md")),
    ("SL1022", include_str!("../../../docs/lint/SL1022.md")),
    ("SL1024", include_str!("../../../docs/lint/SL1024.md")),
    ("SL1025", include_str!("../../../docs/lint/SL1025.md")),
    ("SL1033", include_str!("../../../docs/lint/SL1033.md")),
    ("SL1034", include_str!("../../../docs/lint/SL1034.md")),
    ("SL1036", include_str!("../../../docs/lint/SL1036.md")),
    ("SL1041", include_str!("../../../docs/lint/SL1041.md")),
    ("SL1042", include_str!("../../../docs/lint/SL1042.md")),
    ("SL1043", include_str!("../../../docs/lint/SL1043.md")),
    ("SL1044", include_str!("../../../docs/lint/SL1044.md")),
    ("SL1045", include_str!("../../../docs/lint/SL1045.md")),
    ("SL1046", include_str!("../../../docs/lint/SL1046.md")),
    ("SL2201", include_str!("../../../docs/lint/SL2201.md")),
    ("SL2202", include_str!("../../../docs/lint/SL2202.md")),
    ("SL2203", include_str!("../../../docs/lint/SL2203.md")),
    ("SL2204", include_str!("../../../docs/lint/SL2204.md")),
    ("SL2205", include_str!("../../../docs/lint/SL2205.md")),
    ("SL2206", include_str!("../../../docs/lint/SL2206.md")),
    ("SL2207", include_str!("../../../docs/lint/SL2207.md")),
    ("SL2208", include_str!("../../../docs/lint/SL2208.md")),
    ("SL2209", include_str!("../../../docs/lint/SL2209.md")),
    ("SL2301", include_str!("../../../docs/lint/SL2301.md")),
    ("SL2302", include_str!("../../../docs/lint/SL2302.md")),
    ("SL2303", include_str!("../../../docs/lint/SL2303.md")),
    ("SL2304", include_str!("../../../docs/lint/SL2304.md")),
    ("SL2305", include_str!("../../../docs/lint/SL2305.md")),
];

/// What there is to say about a code: its page, or its title where it is no finding of lint.
pub(crate) fn of_code(text: &str) -> Option<String> {
    let wanted = text.to_ascii_uppercase();
    if let Some((_, page)) = PAGES.iter().find(|(code, _)| *code == wanted) {
        return Some((*page).to_owned());
    }
    let code = Code::ALL.iter().find(|code| code.as_str() == wanted)?;
    let force = match code.severity() {
        Severity::Warning => "The object is in force as it is written.",
        Severity::Error => "What it names is not in force, or the whole object is not.",
    };
    Some(format!("# {code}: {}\n\n{force}\n", code.title()))
}

/// Prints what this program is.
pub(crate) fn version(output: AnswerOutput) {
    let version = env!("CARGO_PKG_VERSION");
    let typed = serde_json::json!({
        "apiVersion": sluice_report::API_VERSION, "kind": "Version", "version": version,
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    match output {
        AnswerOutput::Json => data::print(Form::Json, &typed),
        AnswerOutput::Yaml => data::print(Form::Yaml, &typed),
        AnswerOutput::Table => println!("sluice {version}"),
    }
}

/// Prints the page of a code, or the help of a command.
pub(crate) fn print(topic: Option<&str>) -> anyhow::Result<()> {
    let mut command = args::command();
    command.build();
    let Some(topic) = topic else {
        command.print_long_help()?;
        return Ok(());
    };
    if let Some(page) = of_code(topic) {
        print!("{page}");
        return Ok(());
    }
    match command.find_subcommand_mut(topic) {
        Some(sub) => sub.print_long_help()?,
        None => {
            let known = command.get_subcommands().map(clap::Command::get_name);
            let hint = nearest::did_you_mean(topic, known.chain(Code::ALL.iter().map(|code| code.as_str())));
            bail!(
                "{topic:?} is neither a command nor a code such as SL1021{hint}; sluice help lists the commands"
            )
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_lint_is_here() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lint");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("docs/lint")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter_map(|name| name.strip_suffix(".md").filter(|n| n.starts_with("SL")).map(str::to_owned))
            .collect();
        files.sort();
        assert_eq!(PAGES.map(|(code, _)| code.to_owned()).to_vec(), files);
    }

    #[test]
    fn every_code_is_explained() {
        for code in Code::ALL {
            let page = of_code(&code.as_str().to_lowercase()).expect("something");
            assert!(page.starts_with(&format!("# {code}")), "{page}");
        }
        assert_eq!(of_code("SL9999"), None);
    }
}
