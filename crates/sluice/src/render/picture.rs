//! Reachability as a picture: a graph for Graphviz, and a matrix in SVG.
//!
//! Both are drawn by workload, or by namespace where there are too many workloads to read. What some members of an end may
//! and others may not is drawn as partly open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use sluice_report::{ReachRow, Reachability, words};

use super::text::{dot, xml};

/// Ends that a matrix shows by workload; beyond it namespaces stand for their workloads.
const READABLE: usize = 60;

/// What a cell says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cell {
    /// What is allowed, by family, of every pair of members: each different text once.
    texts: BTreeSet<(String, String)>,
    undecided: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shade {
    Open,
    Partly,
    Closed,
    Unknown,
}

impl Cell {
    fn add(&mut self, row: &ReachRow) {
        self.texts.insert((row.family.clone(), words(&row.allowed)));
        self.undecided |= !row.undecided.is_empty();
    }

    fn shade(&self) -> Shade {
        let all = |text: &str| self.texts.iter().all(|(_, t)| t == text);
        match (self.undecided, all("everything"), all("nothing")) {
            (true, ..) => Shade::Unknown,
            (_, true, _) => Shade::Open,
            (_, _, true) => Shade::Closed,
            _ => Shade::Partly,
        }
    }

    /// `TCP 80`, or by family where they differ.
    fn label(&self) -> String {
        let mut by_text: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (family, text) in &self.texts {
            by_text.entry(text).or_default().push(family);
        }
        if by_text.len() == 1 {
            return by_text.keys().copied().collect();
        }
        let parts = by_text.iter().filter(|(text, _)| **text != "nothing");
        parts.map(|(text, families)| format!("{}: {text}", families.join("+"))).collect::<Vec<_>>().join("; ")
    }
}

/// The rows put together by drawn ends.
struct Grid {
    ends: Vec<String>,
    cells: BTreeMap<(String, String), Cell>,
}

impl Grid {
    fn new(reachability: &Reachability, workload: &dyn Fn(&str) -> Option<String>) -> Self {
        let by_workload = |name: &str| workload(name).unwrap_or_else(|| name.to_owned());
        let grid = Grid::by(reachability, &by_workload);
        if grid.ends.len() <= READABLE {
            return grid;
        }
        Grid::by(reachability, &|name| match namespace(&by_workload(name)) {
            Some(namespace) => format!("{namespace}/*"),
            None => name.to_owned(),
        })
    }

    fn by(reachability: &Reachability, drawn: &dyn Fn(&str) -> String) -> Self {
        let mut cells: BTreeMap<(String, String), Cell> = BTreeMap::new();
        let mut known: BTreeMap<&str, String> = BTreeMap::new();
        for row in &reachability.rows {
            for name in [&row.from, &row.to] {
                known.entry(name).or_insert_with(|| drawn(name));
            }
            cells
                .entry((known[row.from.as_str()].clone(), known[row.to.as_str()].clone()))
                .or_default()
                .add(row);
        }
        let mut ends: Vec<String> = known.into_values().collect::<BTreeSet<_>>().into_iter().collect();
        // pods by namespace first, then nodes, then what is outside
        ends.sort_by_key(|end| (rank(end), end.clone()));
        Grid { ends, cells }
    }
}

fn rank(end: &str) -> u8 {
    match end {
        "ingress-controller" => 1,
        end if end.starts_with("node ") => 2,
        end if end.starts_with("outside ") => 3,
        _ => 0,
    }
}

/// The namespace of an end that has one.
fn namespace(end: &str) -> Option<&str> {
    if rank(end) > 0 { None } else { end.split_once('/').map(|(namespace, _)| namespace) }
}

/// A directed graph; what is closed has no edge.
pub(crate) fn graph(reachability: &Reachability, workload: &dyn Fn(&str) -> Option<String>) -> String {
    let grid = Grid::new(reachability, workload);
    let mut out = String::from(
        "digraph reachability {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\", fontsize=11];\n  edge [fontname=\"sans-serif\", fontsize=9];\n",
    );
    let mut groups: BTreeMap<Option<&str>, Vec<&String>> = BTreeMap::new();
    for end in &grid.ends {
        groups.entry(namespace(end)).or_default().push(end);
    }
    for (number, (group, ends)) in groups.iter().enumerate() {
        let indent = match group {
            Some(name) => {
                let _ = writeln!(out, "  subgraph cluster_{number} {{\n    label={};", dot(name));
                "    "
            }
            None => "  ",
        };
        for end in ends {
            let short = group.and_then(|name| end.strip_prefix(name)?.strip_prefix('/')).unwrap_or(end);
            let shape = if group.is_some() { "" } else { ", style=rounded" };
            let _ = writeln!(out, "{indent}{} [label={}{shape}];", dot(end), dot(short));
        }
        if group.is_some() {
            out.push_str("  }\n");
        }
    }
    for ((from, to), cell) in &grid.cells {
        let style = match cell.shade() {
            Shade::Closed => continue,
            Shade::Open => "color=\"#0072b2\"",
            Shade::Partly => "color=\"#0072b2\", style=dashed",
            Shade::Unknown => "color=\"#777777\", style=dotted",
        };
        let label = if cell.undecided { "undecided".to_owned() } else { cell.label() };
        let _ = writeln!(out, "  {} -> {} [label={}, {style}];", dot(from), dot(to), dot(&label));
    }
    out.push_str("}\n");
    out
}

/// Pixels.
const SIDE: usize = 22;
const LETTER: usize = 7;
const MARGIN: usize = 16;
const LEGEND: usize = 34;

/// A matrix: sources are rows, destinations columns, namespaces are set apart.
pub(crate) fn matrix(reachability: &Reachability, workload: &dyn Fn(&str) -> Option<String>) -> String {
    let grid = Grid::new(reachability, workload);
    let rows: BTreeSet<&String> = grid.cells.keys().map(|(from, _)| from).collect();
    let columns: BTreeSet<&String> = grid.cells.keys().map(|(_, to)| to).collect();
    let rows: Vec<&String> = grid.ends.iter().filter(|end| rows.contains(end)).collect();
    let columns: Vec<&String> = grid.ends.iter().filter(|end| columns.contains(end)).collect();
    let longest =
        |ends: &[&String]| ends.iter().map(|e| e.chars().count()).max().unwrap_or(0) * LETTER + MARGIN;
    let (left, top) = (longest(&rows) + MARGIN, longest(&columns) + MARGIN);
    let (x_of, width) = positions(&columns);
    let (y_of, height) = positions(&rows);
    let (total_width, total_height) = ((left + width + MARGIN).max(420), top + height + MARGIN + LEGEND);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total_width}\" height=\"{total_height}\" viewBox=\"0 0 {total_width} {total_height}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>Who can reach whom: rows are sources, columns are destinations</title>\n\
         <defs><pattern id=\"closed\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><rect width=\"6\" height=\"6\" fill=\"#f6c9b0\"/><path d=\"M0 6L6 0\" stroke=\"#d55e00\" stroke-width=\"1\"/></pattern>\
         <pattern id=\"unknown\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><rect width=\"6\" height=\"6\" fill=\"#eeeeee\"/><circle cx=\"3\" cy=\"3\" r=\"1\" fill=\"#777777\"/></pattern></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (column, x) in columns.iter().zip(&x_of) {
        let (x, y) = (left + x + SIDE / 2 + 4, top - 6);
        let _ = writeln!(out, "<text transform=\"translate({x} {y}) rotate(-90)\">{}</text>", xml(column));
    }
    for (row, y) in rows.iter().zip(&y_of) {
        let (x, y) = (left - 6, top + y + SIDE / 2 + 4);
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{}</text>", xml(row));
    }
    for (row, y) in rows.iter().zip(&y_of) {
        for (column, x) in columns.iter().zip(&x_of) {
            let Some(cell) = grid.cells.get(&((*row).clone(), (*column).clone())) else { continue };
            let (text, shade) = match cell.shade() {
                Shade::Unknown => ("undecided".to_owned(), Shade::Unknown),
                shade => (cell.label(), shade),
            };
            let title = xml(&format!("{row} to {column}: {text}"));
            draw(&mut out, left + x, top + y, shade, &title);
        }
    }
    let y = top + height + MARGIN;
    for (n, (shade, word)) in [
        (Shade::Open, "everything"),
        (Shade::Partly, "partly"),
        (Shade::Closed, "nothing"),
        (Shade::Unknown, "undecided"),
    ]
    .into_iter()
    .enumerate()
    {
        let x = MARGIN + n * 100;
        draw(&mut out, x, y, shade, word);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{word}</text>", x + SIDE + 4, y + SIDE / 2 + 4);
    }
    out.push_str("</svg>\n");
    out
}

/// Where each end begins, with a gap before every new namespace, and the whole length.
fn positions(ends: &[&String]) -> (Vec<usize>, usize) {
    let mut at = 0;
    let mut positions = Vec::with_capacity(ends.len());
    for (n, end) in ends.iter().enumerate() {
        if n > 0 && (namespace(ends[n - 1]), rank(ends[n - 1])) != (namespace(end), rank(end)) {
            at += SIDE / 3;
        }
        positions.push(at);
        at += SIDE;
    }
    (positions, at)
}

/// A cell: hue and pattern, and for partly open ones a shape, so that it can be read without colours.
fn draw(out: &mut String, x: usize, y: usize, shade: Shade, title: &str) {
    let fill = match shade {
        Shade::Open => "#0072b2",
        Shade::Partly => "#cfe3f1",
        Shade::Closed => "url(#closed)",
        Shade::Unknown => "url(#unknown)",
    };
    let side = SIDE - 2;
    let _ = write!(
        out,
        "<g><title>{title}</title><rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" fill=\"{fill}\"/>"
    );
    if shade == Shade::Partly {
        let (bottom, right) = (y + side, x + side);
        let _ = write!(out, "<path d=\"M{x} {y}L{x} {bottom}L{right} {bottom}Z\" fill=\"#0072b2\"/>");
    }
    out.push_str("</g>\n");
}
