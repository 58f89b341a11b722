//! The report as one HTML page that needs no other file, on dark and on light.
//!
//! It is well-formed XML as well, so a test can parse it.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Report, summary};
use crate::plot::escaped;
use crate::report::Table;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #ffffff; --text: #1f2328; --quiet: #59636e;
  --line: #d1d9e0; --raised: #f6f8fa; --own: #fdecec; --best: #116329; --warn: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --text: #e6edf3;
  --quiet: #9198a1; --line: #3d444d; --raised: #151b23; --own: #3a1d20; --best: #57c757;
  --warn: #d29922; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 80px; background: var(--ground);
  color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 30px; line-height: 1.2; margin: 12px 0 16px; }
h2 { font-size: 23px; margin: 56px 0 8px; padding-top: 16px; border-top: 1px solid var(--line); }
p { max-width: 78ch; }
a { color: inherit; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; padding: 12px 16px; border-radius: 8px;
  background: var(--raised); }
figure { margin: 24px 0; }
figure svg { display: block; width: 100%; max-width: 860px; height: auto;
  border: 1px solid var(--line); border-radius: 8px; }
figcaption, .notes, .command { color: var(--quiet); font-size: 14px; }
figcaption { margin: 8px 0; }
.warning { color: var(--warn); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums;
  margin: 8px 0; }
th, td { padding: 5px 12px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { background: var(--raised); }
tr.own td { background: var(--own); }
td.best { color: var(--best); font-weight: 700; }
.summary td:first-child { white-space: normal; }
summary { cursor: pointer; }
code { font: 14px/1.4 ui-monospace, monospace; background: var(--raised); padding: 1px 5px;
  border-radius: 4px; }
";

/// Returns the page.
pub fn page(report: &Report) -> Result<String> {
    let mut text = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>cortado: benchmarks</title>\n<style>",
    );
    text += STYLE;
    text += "</style>\n</head>\n<body>\n<h1>cortado beside other caches</h1>\n";
    for paragraph in report.introduction() {
        let _ = writeln!(text, "<p>{}</p>", prose(&paragraph));
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "<p class=\"warning\">Warning: {}.</p>", prose(warning));
    }
    text += "<nav>";
    for section in &report.sections {
        let title = section.title.split(':').next().unwrap_or(&section.title);
        let _ = write!(text, "<a href=\"#{}\">{}</a> ", section.id, escaped(title));
    }
    text += "</nav>\n";
    let summary = summary(report);
    if !summary.rows.is_empty() {
        text += "<h2 id=\"summary\">In short</h2>\n";
        text += &table(&summary, "summary");
    }
    for section in &report.sections {
        let _ = write!(
            text,
            "<section>\n<h2 id=\"{}\">{}</h2>\n<p>{}</p>\n",
            section.id,
            escaped(&section.title),
            prose(&section.text)
        );
        for block in &section.blocks {
            let svg = block.chart.svg()?;
            let svg = &svg[svg.find("<svg").unwrap_or(0)..];
            let _ = write!(
                text,
                "<figure>\n{}\n<figcaption>{}</figcaption>\n<details><summary>Figures</summary>\n{}\
                 </details>\n</figure>\n",
                svg.trim_end(),
                escaped(&report.caption()),
                table(&block.table, "figures")
            );
        }
        if !section.notes.is_empty() {
            text += "<ul class=\"notes\">";
            for note in &section.notes {
                let _ = write!(text, "<li>{}</li>", prose(note));
            }
            text += "</ul>\n";
        }
        text += "</section>\n";
    }
    let command = escaped(&report.command);
    let _ = writeln!(text, "<p class=\"command\">Written by <code>{command}</code></p>");
    text += "</body>\n</html>\n";
    Ok(text)
}

fn table(table: &Table, class: &str) -> String {
    let mut text = format!("<div class=\"wide\"><table class=\"{class}\">\n<tr>");
    for name in &table.head {
        let _ = write!(text, "<th>{}</th>", escaped(name));
    }
    text += "</tr>\n";
    for row in &table.rows {
        text += if row.is_own { "<tr class=\"own\">" } else { "<tr>" };
        for (column, cell) in row.cells.iter().enumerate() {
            let class = if row.best.contains(&column) { " class=\"best\"" } else { "" };
            let _ = write!(text, "<td{class}>{}</td>", escaped(cell));
        }
        text += "</tr>\n";
    }
    text + "</table></div>\n"
}

/// Returns prose with what stands between backticks as code.
fn prose(text: &str) -> String {
    let mut html = String::new();
    for (i, part) in text.split('`').enumerate() {
        let part = escaped(part);
        html += &if i % 2 == 1 { format!("<code>{part}</code>") } else { part };
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backticks_are_code() {
        assert_eq!(prose("a < `b & c` d"), "a &lt; <code>b &amp; c</code> d");
    }
}
