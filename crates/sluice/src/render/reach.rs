//! Reachability as a table, as CSV, as Markdown and as HTML.

use std::io::{self, Write};

use sluice_report::{ReachRow, Reachability, words};

use super::text::{csv, markdown, xml};

/// The rows under each other.
pub(crate) fn table(out: &mut impl Write, reachability: &Reachability) -> io::Result<()> {
    let width = |pick: fn(&ReachRow) -> &String| {
        reachability.rows.iter().map(|r| pick(r).chars().count()).max().unwrap_or(0).max(4)
    };
    let (w1, w2) = (width(|r| &r.from), width(|r| &r.to));
    writeln!(out, "{:w1$}  {:w2$}  {:6}  ALLOWED", "FROM", "TO", "FAMILY")?;
    for row in &reachability.rows {
        writeln!(out, "{:w1$}  {:w2$}  {:6}  {}", row.from, row.to, row.family, allowed(row))?;
    }
    Ok(())
}

/// One row a line.
pub(crate) fn comma_separated(out: &mut impl Write, reachability: &Reachability) -> io::Result<()> {
    writeln!(out, "from,to,family,allowed,undecided")?;
    for row in &reachability.rows {
        let (allowed, undecided) = (words(&row.allowed), row.undecided.join("; "));
        let cells = [&row.from, &row.to, &row.family, &allowed, &undecided].map(|c| csv(c));
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

/// A table for a page or a review comment.
pub(crate) fn page(out: &mut impl Write, reachability: &Reachability) -> io::Result<()> {
    writeln!(out, "| from | to | family | allowed |\n|---|---|---|---|")?;
    for row in &reachability.rows {
        let cells = [&row.from, &row.to, &row.family, &allowed(row)].map(|c| markdown(c));
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

/// A page of its own: the picture, then the rows. It loads nothing.
pub(crate) fn document(out: &mut impl Write, picture: &str, reachability: &Reachability) -> io::Result<()> {
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Who can reach whom</title>\n\
         <style>body {{ font-family: sans-serif }} table {{ border-collapse: collapse }} th, td {{ border: 1px solid #bbbbbb; padding: 0.2em 0.6em; text-align: left }}</style>\n\
         </head>\n<body>\n{picture}<table>\n<thead><tr><th>from</th><th>to</th><th>family</th><th>allowed</th></tr></thead>\n<tbody>\n"
    )?;
    for row in &reachability.rows {
        let cells = [&row.from, &row.to, &row.family, &allowed(row)].map(|cell| xml(cell));
        writeln!(out, "<tr><td>{}</td></tr>", cells.join("</td><td>"))?;
    }
    writeln!(out, "</tbody>\n</table>\n</body>\n</html>")
}

/// What a row allows, and what of it is not known.
pub(crate) fn allowed(row: &ReachRow) -> String {
    match row.undecided.is_empty() {
        true => words(&row.allowed),
        false => format!("undecided: {}", row.undecided.join("; ")),
    }
}
