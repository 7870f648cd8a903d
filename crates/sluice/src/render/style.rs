//! Colour, where somebody looks at it. A verdict is always a word too.

use std::io::IsTerminal;
use std::sync::OnceLock;

use sluice_report::Answer;

use crate::args::When;

/// What the command line says about colour.
static CHOSEN: OnceLock<When> = OnceLock::new();

/// Heeds `--color`, from now on.
pub(crate) fn choose(when: When) {
    // the first word stands: there is one command line
    let _ = CHOSEN.set(when);
}

/// Whether `--ascii` was given.
static ASCII: OnceLock<bool> = OnceLock::new();

/// Heeds `--ascii`, from now on.
pub(crate) fn only_ascii(ascii: bool) {
    // as for colours
    let _ = ASCII.set(ascii);
}

/// A mark, or what stands for it where only ASCII is wanted.
pub(crate) fn plain(mark: &'static str, ascii: &'static str) -> &'static str {
    if ASCII.get().copied().unwrap_or_default() { ascii } else { mark }
}

/// A sentence of ours, with its marks in ASCII where only that is wanted; names keep their letters.
pub(crate) fn sentence(text: &impl std::fmt::Display) -> String {
    let text = text.to_string();
    match ASCII.get().copied().unwrap_or_default() {
        true => text.replace('…', "...").replace('–', "-"),
        false => text,
    }
}

/// Whether to colour what goes to standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    coloured: bool,
}

/// The colours, as spec'd for verdicts: never red against green alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Blue,
    Vermilion,
    Grey,
    Bold,
}

impl Style {
    /// By `--color`; without it by `NO_COLOR` (any value but the empty one switches off), `CLICOLOR_FORCE`, `TERM` and the terminal.
    pub(crate) fn of_stdout() -> Self {
        match CHOSEN.get().copied().unwrap_or_default() {
            When::Always => return Style { coloured: true },
            When::Never => return Style { coloured: false },
            When::Auto => {}
        }
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0");
        let shown = std::io::stdout().is_terminal() && !dumb;
        Style { coloured: !set("NO_COLOR") && (forced || shown) }
    }

    /// The text in a colour.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.coloured {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Blue => "38;5;33",
            Colour::Vermilion => "38;5;202",
            Colour::Grey => "38;5;245",
            Colour::Bold => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// `+ Allowed`, `x Denied`, `? Undecided`.
    pub(crate) fn verdict(self, verdict: Answer) -> String {
        let (mark, colour) = match verdict {
            Answer::Allow => ('+', Colour::Blue),
            Answer::Deny => ('x', Colour::Vermilion),
            Answer::Undecided => ('?', Colour::Grey),
        };
        self.paint(colour, &format!("{mark} {verdict}"))
    }
}
