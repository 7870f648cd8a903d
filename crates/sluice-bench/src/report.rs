//! Ours beside what others published and what was aimed at.

use serde::Serialize;

use crate::measure::{Measure, Measurement, Unit};
use crate::workload::{COMPILE, Workload};

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine: its processors.
    pub machine: String,
    /// The size of all workloads; targets are judged and others compared at 1 only.
    pub scale: f64,
    /// The measures, by workload.
    pub rows: Vec<Row>,
}

/// One measure of a workload.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The workload.
    pub workload: String,
    /// What the workload is.
    pub about: String,
    /// How many objects it has.
    pub objects: usize,
    /// How many of its connections were compared with the law, without a difference.
    pub compared: usize,
    /// What was observed.
    pub measure: Measure,
    /// What others published.
    pub published: Option<Comparison>,
    /// What it has to stay below, in its unit.
    pub target: Option<f64>,
    /// Does it?
    pub met: Option<bool>,
}

/// A number of another project, measured on another machine.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Which project.
    pub by: String,
    /// In the unit of the measure.
    pub value: f64,
    /// So many times ours.
    pub ratio: f64,
}

impl Report {
    pub(crate) fn new(scale: f64) -> Self {
        Report { machine: machine(), scale, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, workload: &Workload, measurement: Measurement) {
        let full = self.scale == crate::Options::FULL;
        for measure in measurement.measures {
            let judged = judged_by(&measure);
            let published = workload.published.iter().find(|p| full && p.measure == measure.name);
            let target = workload.targets.iter().find(|t| full && t.measure == measure.name);
            self.rows.push(Row {
                workload: workload.name.into(),
                about: workload.about.into(),
                objects: measurement.objects,
                compared: measurement.compared,
                published: published.map(|p| Comparison {
                    by: p.by.into(),
                    value: p.value,
                    ratio: p.value / judged,
                }),
                target: target.map(|t| t.below),
                // a change that touches much may take longer: 1 ms, or 1 µs for each element
                met: target.map(|t| {
                    judged < t.below || (t.below == 1e-3 && measure.used.is_some_and(|used| used < 1.0))
                }),
                measure,
            });
        }
    }

    /// How many targets were judged, and how many are met.
    pub fn targets(&self) -> (usize, usize) {
        let met = self.rows.iter().filter_map(|row| row.met);
        (met.clone().count(), met.filter(|met| *met).count())
    }

    /// The table for a terminal.
    pub fn table(&self) -> String {
        let rows = self.cells();
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let line: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(at, (cell, width))| match at {
                    0 | 1 | 5 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
        text.push_str(&self.summary());
        text
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (number, row) in self.cells().iter().enumerate() {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
            if number == 0 {
                text.push_str("|---|---|---:|---:|---:|---|---:|---:|---|\n");
            }
        }
        text.push('\n');
        text.push_str(&self.summary());
        text
    }

    fn summary(&self) -> String {
        let mut compared: Vec<(&str, usize)> =
            self.rows.iter().map(|row| (&*row.workload, row.compared)).collect();
        compared.dedup();
        let compared: usize = compared.into_iter().map(|(_, count)| count).sum();
        let (judged, met) = self.targets();
        let targets = match self.scale == crate::Options::FULL {
            true => format!("{met} of {judged} targets met"),
            false => format!("sizes × {}, so that no target is judged", self.scale),
        };
        format!(
            "{}. {targets}. {compared} connections compared with the law, no difference.\n\
             compile: time on a processor, median of its repeats; all else: 99th percentile. Published numbers: other \
             machines.\n",
            self.machine
        )
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let mut rows = vec![
            [
                "workload",
                "measure",
                "p50",
                "p99",
                "max",
                "published (other machine)",
                "ratio",
                "target",
                "met",
            ]
            .map(String::from)
            .to_vec(),
        ];
        for row in &self.rows {
            let show = |value| show(row.measure.unit, value);
            let published = row.published.as_ref();
            rows.push(vec![
                row.workload.clone(),
                row.measure.name.clone(),
                show(row.measure.p50),
                show(row.measure.p99),
                show(row.measure.max),
                published.map_or_else(String::new, |p| format!("{} {}", show(p.value), p.by)),
                published.map_or_else(String::new, |p| format!("{:.1}×", p.ratio)),
                row.target.map_or_else(String::new, |target| format!("< {}", show(target))),
                row.met.map_or("", |met| if met { "yes" } else { "no" }).into(),
            ]);
        }
        rows
    }
}

/// Compilation is repeated a few times only, so that its median says most.
fn judged_by(measure: &Measure) -> f64 {
    if measure.name == COMPILE { measure.p50 } else { measure.p99 }
}

/// Three digits and a unit.
fn show(unit: Unit, value: f64) -> String {
    let (value, unit) = match unit {
        Unit::MiB => (value, "MiB"),
        Unit::Seconds if value >= 1.0 => (value, "s"),
        Unit::Seconds if value >= 1e-3 => (value * 1e3, "ms"),
        Unit::Seconds if value >= 1e-6 => (value * 1e6, "µs"),
        Unit::Seconds => (value * 1e9, "ns"),
    };
    let digits = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} × {}", model.unwrap_or("unknown processor"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    fn measured(name: &str, value: f64) -> Measure {
        Measure::new(name, Unit::Seconds, vec![value])
    }

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let shown = [4.2e-9, 1.234e-6, 12.34e-6, 0.1234, 5.8, 99.96].map(|v| show(Unit::Seconds, v));
        assert_eq!(shown, ["4.20 ns", "1.23 µs", "12.3 µs", "123 ms", "5.80 s", "100 s"]);
        assert_eq!(show(Unit::MiB, 1157.0), "1157 MiB");
    }

    #[test]
    fn targets_are_judged_at_full_size_only() {
        let workload = workload::find("antrea-namespaces").unwrap();
        for (scale, seconds, met, ratio) in
            [(1.0, 0.5, Some(true), Some(11.6)), (1.0, 2.0, Some(false), Some(2.9)), (0.1, 0.5, None, None)]
        {
            let mut report = Report::new(scale);
            let measures = vec![measured(COMPILE, seconds)];
            report.add(workload, Measurement { measures, objects: 1, compared: 1 });
            let row = &report.rows[0];
            assert_eq!((row.met, row.published.as_ref().map(|p| p.ratio)), (met, ratio));
        }
    }

    #[test]
    fn a_change_of_many_elements_may_take_longer() {
        let workload = workload::find("agent").unwrap();
        for (used, met) in [(0.9, true), (1.1, false)] {
            let mut report = Report::new(1.0);
            let edit = Measure { used: Some(used), ..measured(crate::events::PORT_EDITED, 5e-3) };
            let pod = Measure { used: Some(used), ..measured(crate::events::POD_ARRIVES, 6e-6) };
            report.add(workload, Measurement { measures: vec![edit, pod], objects: 1, compared: 1 });
            assert_eq!(report.rows[0].met, Some(met));
            assert_eq!(report.rows[1].met, Some(false));
        }
    }
}
