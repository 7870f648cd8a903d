//! The demo's result as table, Markdown or JSON.

use std::fmt::Write;
use std::time::Duration;

use sluice_report::{API_VERSION, ClaimReport, ClaimState, Observation};

use super::scenario::VARIANTS;
use crate::render::style::plain;
use crate::render::text::csv;

/// Everything the demo found out.
pub(crate) struct Outcome {
    pub(crate) reports: Vec<ClaimReport>,
    /// What was shown beside the claims: a sentence, and whether it was so.
    pub(crate) shown: Vec<(String, bool)>,
    /// From the command to the finished table.
    pub(crate) took: Duration,
    /// From the command to a running lab.
    pub(crate) started: Duration,
}

impl Outcome {
    /// Is every verdict as the reference says, in all three truths?
    pub(crate) fn is_as_expected(&self) -> bool {
        self.reports.iter().all(|r| r.contradictions.is_empty()) && self.shown.iter().all(|(_, ok)| *ok)
    }

    /// For programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": API_VERSION,
            "kind": "DemoReport",
            "asExpected": self.is_as_expected(),
            "tookMillis": self.took.as_millis() as u64,
            "startedMillis": self.started.as_millis() as u64,
            "claims": self.reports,
            "shown": self.shown.iter().map(|(text, ok)| serde_json::json!({"text": text, "ok": ok})).collect::<Vec<_>>(),
        })
    }

    /// For spreadsheets.
    pub(crate) fn comma_separated(&self) -> String {
        let word = |state: Option<ClaimState>| csv(state.map_or("not asked", ClaimState::word));
        let mut text = String::from("situation,claim,says,declared,programmed,observed,contradictions\n");
        for report in &self.reports {
            let (truths, loud) = (&report.truths, report.contradictions.join("; "));
            let cells = [
                csv(&report.variant),
                csv(&report.id),
                csv(&report.text),
                word(truths.declared),
                word(truths.programmed),
                word(truths.observed),
                csv(&loud),
            ];
            let _ = writeln!(text, "{}", cells.join(","));
        }
        text
    }

    /// For documents.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("| claim |");
        for variant in &VARIANTS {
            let _ = write!(text, " {} |", variant.name);
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(VARIANTS.len()));
        text.push('\n');
        for (id, sentence, cells) in self.rows() {
            let _ = write!(text, "| {id} {sentence} |");
            for cell in cells {
                let _ = write!(text, " {} |", cell.map_or(plain("–", "-").to_owned(), cell_text));
            }
            text.push('\n');
        }
        text.push_str("\nD declared, P programmed (read back from the kernel), O observed (packets).\n");
        for report in &self.reports {
            if let Some(witness) =
                report.result.witness.as_ref().filter(|_| report.result.state == ClaimState::Fails)
            {
                let _ = writeln!(text, "- {} in {}: {witness}", report.id, report.variant);
            }
            for contradiction in &report.contradictions {
                let _ = writeln!(text, "- **! {} in {}: {contradiction}**", report.id, report.variant);
            }
        }
        text
    }

    /// For people.
    pub(crate) fn table(&self, colour: bool) -> String {
        let mut text = String::new();
        let widths: Vec<usize> = VARIANTS.iter().map(|v| v.name.len().max(19)).collect();
        let _ = write!(text, "{:4}", "");
        for (variant, width) in VARIANTS.iter().zip(&widths) {
            let _ = write!(text, "  {:width$}", variant.name);
        }
        text.push('\n');
        for (id, sentence, cells) in self.rows() {
            let _ = writeln!(text, "{id:4}{sentence}");
            let _ = write!(text, "{:4}", "");
            for (cell, width) in cells.into_iter().zip(&widths) {
                let (plain, loud) = match cell {
                    Some(report) => (cell_text(report), !report.contradictions.is_empty()),
                    None => ("-".to_owned(), false),
                };
                let padded = format!("{plain:width$}");
                let shown = match (colour, loud) {
                    (true, true) => format!("\x1b[1;35m{padded}\x1b[0m"),
                    _ => padded,
                };
                let _ = write!(text, "  {shown}");
            }
            text.push('\n');
        }
        text.push_str("\nD declared (from the objects)  P programmed (rules read back from the kernel)  O observed (packets)\n");
        text.push_str("\nWhy:\n");
        for report in &self.reports {
            let _ = writeln!(
                text,
                "  {:3} {:14} {}: {}",
                report.id, report.variant, report.result.state, report.result.reason
            );
            for flag in &report.result.depends_on {
                let _ = writeln!(text, "  {:18} depends on: {flag}", "");
            }
        }
        for (sentence, ok) in &self.shown {
            let _ = writeln!(text, "  {} {sentence}", if *ok { "+" } else { "!" });
        }
        let loud: Vec<&ClaimReport> = self.reports.iter().filter(|r| !r.contradictions.is_empty()).collect();
        if !loud.is_empty() {
            let (on, off) = if colour { ("\x1b[1;35m", "\x1b[0m") } else { ("", "") };
            let _ = writeln!(text, "\n{on}! {} verdicts are not as they must be:{off}", loud.len());
            for report in loud {
                for contradiction in &report.contradictions {
                    let _ = writeln!(text, "{on}! {} in {}: {contradiction}{off}", report.id, report.variant);
                }
            }
        }
        let probes: usize = self.reports.iter().map(|r| r.probes.len()).sum();
        let _ = writeln!(
            text,
            "\n{} verdicts, {probes} probes; lab up after {:.2} s, finished after {:.2} s",
            self.reports.len(),
            self.started.as_secs_f64(),
            self.took.as_secs_f64()
        );
        text
    }

    /// One row per claim, with its report of each situation.
    fn rows(&self) -> Vec<(String, String, Vec<Option<&ClaimReport>>)> {
        let mut ids: Vec<&str> = Vec::new();
        for report in &self.reports {
            if !ids.contains(&report.id.as_str()) {
                ids.push(&report.id);
            }
        }
        ids.into_iter()
            .map(|id| {
                let find = |variant: &str| self.reports.iter().find(|r| r.id == id && r.variant == variant);
                let text =
                    self.reports.iter().find(|r| r.id == id).map(|r| r.text.clone()).unwrap_or_default();
                (id.to_owned(), text, VARIANTS.iter().map(|v| find(v.name)).collect())
            })
            .collect()
    }
}

/// `does not hold DPO`, with a `!` where something is wrong.
fn cell_text(report: &ClaimReport) -> String {
    let word = match report.truths.declared {
        Some(ClaimState::Holds) => "holds",
        Some(ClaimState::Vacuous) => "vacuous",
        Some(ClaimState::Fails) => "false",
        Some(ClaimState::Undecided) | None => "undecided",
    };
    let mark = |name: char, state: Option<ClaimState>| match state {
        None => '-',
        Some(state) if Some(state) == report.truths.declared => name,
        Some(_) => '!',
    };
    let loud = if report.contradictions.is_empty() { "" } else { "! " };
    format!(
        "{loud}{word} {}{}{}",
        mark('D', report.truths.declared),
        mark('P', report.truths.programmed),
        mark('O', report.truths.observed)
    )
}

/// The state of an observed claim where a probe proved nothing.
pub(crate) fn inconclusive(probes: &[sluice_report::Probe]) -> Option<String> {
    probes.iter().find_map(|p| match &p.observation {
        Observation::Inconclusive(why) => Some(format!("{} from {} to {}: {why}", p.flow, p.from, p.to)),
        Observation::Answered | Observation::Denied => None,
    })
}
