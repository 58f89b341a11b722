//! The report as Markdown, with its plots as files beside it.

use anyhow::Result;

use super::{Report, summary};
use crate::report::Table;

/// Returns the plots, each with the name of its file.
pub fn plots(report: &Report) -> Result<Vec<(String, String)>> {
    let mut plots = Vec::new();
    for section in &report.sections {
        for (i, block) in section.blocks.iter().enumerate() {
            plots.push((plot_name(&section.id, i), block.chart.svg()?));
        }
    }
    Ok(plots)
}

fn plot_name(section: &str, i: usize) -> String {
    format!("{section}-{}.svg", i + 1)
}

/// Returns the page; the plots are in the directory of this name beside it.
pub fn page(report: &Report, folder: &str) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    text += &format!("Written by `{}`; do not edit it.\n\n", report.command);
    for paragraph in report.introduction() {
        text += &(escaped(&paragraph) + "\n\n");
    }
    for warning in &report.warnings {
        text += &format!("**Warning**: {}.\n\n", escaped(warning));
    }
    let summary = summary(report);
    if !summary.rows.is_empty() {
        text += "## In short\n\n";
        text += &table(&summary);
    }
    for section in &report.sections {
        text += &format!("\n## {}\n\n{}\n", escaped(&section.title), escaped(&section.text));
        for (i, block) in section.blocks.iter().enumerate() {
            let title = escaped(block.chart.title());
            text += &format!("\n![{title}]({folder}/{})\n\n", plot_name(&section.id, i));
            text += &format!("<details><summary>Figures: {title}</summary>\n\n");
            text += &table(&block.table);
            text += &format!("\n{}\n\n</details>\n", escaped(&report.caption()));
        }
        for note in &section.notes {
            text += &format!("\n* {}\n", escaped(note));
        }
    }
    text
}

/// Returns a table, the best figures bold and cortado's name, too.
fn table(table: &Table) -> String {
    let row = |cells: &mut dyn Iterator<Item = String>| {
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut text = row(&mut table.head.iter().map(|name| escaped(name)));
    text += "|---|";
    text += &"--:|".repeat(table.head.len().saturating_sub(1));
    text.push('\n');
    for line in &table.rows {
        text += &row(&mut line.cells.iter().enumerate().map(|(column, cell)| {
            let is_bold = line.best.contains(&column) || (line.is_own && column == 0);
            if is_bold { format!("**{}**", escaped(cell)) } else { escaped(cell) }
        }));
    }
    text
}

/// Returns a text in which nothing is taken for markup, except for `code`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut is_code = false;
    for c in text.chars() {
        match c {
            '`' => is_code = !is_code,
            '_' | '*' | '<' if !is_code => escaped.push('\\'),
            '|' => escaped.push('\\'),
            _ => {}
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;

    #[test]
    fn best_and_own_are_bold() {
        let mut rows = Table::new(["cache", "ns"]);
        rows.rows.push(Row {
            cells: vec!["cortado".into(), "3".into()],
            is_own: true,
            best: vec![],
        });
        rows.rows.push(Row {
            cells: vec!["quick_cache".into(), "2".into()],
            is_own: false,
            best: vec![1],
        });
        assert_eq!(
            table(&rows),
            "| cache | ns |\n|---|--:|\n| **cortado** | 3 |\n| quick\\_cache | **2** |\n"
        );
    }

    #[test]
    fn code_stays_as_it_is() {
        assert_eq!(escaped("a_b `c_d|` <e>"), "a\\_b `c_d\\|` \\<e>");
    }
}
