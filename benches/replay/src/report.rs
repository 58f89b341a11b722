//! Puts results on paper: tables for people, CSV and JSON for programs.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement};
use serde::{Deserialize, Serialize};

use crate::peers::Kind;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// Comma-separated values, with a first line of names.
    Csv,
    /// A list of objects.
    Json,
}

/// Returns the rows in the wanted format; `table` makes the one for people.
pub fn render<R: Serialize>(
    format: Format,
    rows: &[R],
    table: impl FnOnce() -> String,
) -> Result<String> {
    match format {
        Format::Table => Ok(table()),
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for row in rows {
                writer.serialize(row).context("cannot be written as CSV")?;
            }
            let bytes = writer.into_inner().context("cannot be written as CSV")?;
            String::from_utf8(bytes).context("cannot be written as CSV")
        }
        Format::Json => {
            let mut text =
                serde_json::to_string_pretty(rows).context("cannot be written as JSON")?;
            text.push('\n');
            Ok(text)
        }
    }
}

/// Prints; a reader that has gone away, such as `head`, is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written")
        }
        _ => Ok(()),
    }
}

/// A table, and what stands out in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Table {
    /// The names of the columns.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// One row of a table.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Row {
    /// What it says.
    pub cells: Vec<String>,
    /// Whether it is cortado's.
    pub is_own: bool,
    /// The columns in which no other row is better.
    pub best: Vec<usize>,
}

impl Row {
    /// Returns the row of a cache.
    pub fn of(kind: Kind, cells: Vec<String>) -> Self {
        Self { cells, is_own: kind.is_own(), best: Vec::new() }
    }
}

impl From<Vec<String>> for Row {
    fn from(cells: Vec<String>) -> Self {
        Self { cells, ..Self::default() }
    }
}

/// Which figures are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Better {
    /// The higher, the better.
    Higher,
    /// The lower, the better.
    Lower,
}

impl Better {
    /// Returns the places of the best figures; `None` stands for one that does not compete.
    pub fn best(self, figures: &[Option<f64>]) -> Vec<usize> {
        let competing = || figures.iter().flatten().copied();
        if competing().count() < 2 {
            return Vec::new();
        }
        let best = match self {
            Self::Higher => competing().fold(f64::MIN, f64::max),
            Self::Lower => competing().fold(f64::MAX, f64::min),
        };
        (0..figures.len()).filter(|&i| figures[i] == Some(best)).collect()
    }
}

impl Table {
    /// Returns a table without rows.
    pub fn new<S: AsRef<str>>(head: impl IntoIterator<Item = S>) -> Self {
        let head = head.into_iter().map(|name| name.as_ref().to_owned()).collect();
        Self { head, rows: Vec::new() }
    }

    /// Marks the best figures of a column; there is one for each of these rows.
    pub fn mark(&mut self, column: usize, better: Better, rows: &[usize], figures: &[Option<f64>]) {
        for place in better.best(figures) {
            self.rows[rows[place]].best.push(column);
        }
    }

    /// Returns it drawn, its first column to the left and all others to the right. On a terminal
    /// cortado's rows are bold and the best figures green.
    pub fn draw(&self) -> String {
        let mut table = comfy_table::Table::new();
        let bold = |text: &String| Cell::new(text).add_attribute(Attribute::Bold);
        table
            .load_style(UTF8_FULL_CONDENSED.with_rounded_corners())
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.head.iter().map(bold));
        if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            table.force_no_tty();
        }
        for row in &self.rows {
            table.add_row(row.cells.iter().enumerate().map(|(column, text)| {
                let cell = if row.is_own { bold(text) } else { Cell::new(text) };
                if row.best.contains(&column) { cell.fg(Color::DarkGreen) } else { cell }
            }));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\n")
    }
}

/// Returns a table with this head, of rows of which none stands out.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let rows = rows.into_iter().map(Row::from).collect();
    Table { rows, ..Table::new(head) }.draw()
}

/// Writes a warning to standard error.
pub fn warn(text: &str) {
    eprintln!("warning: {text}");
}

/// The shortest measurement whose figure says something.
const SHORTEST_SECONDS: f64 = 0.1;
/// The fewest rounds that have a median.
const FEWEST_ROUNDS: usize = 3;

/// Returns what to say of runs that are too short or too few to mean anything.
pub fn too_short(seconds: f64, rounds: usize) -> Option<String> {
    let short = seconds < SHORTEST_SECONDS;
    let few = rounds < FEWEST_ROUNDS;
    let what = match (short, few) {
        (false, false) => return None,
        (true, false) => format!("runs of {seconds} s are too short to mean anything"),
        (false, true) => format!("{rounds} round(s) have no median to speak of"),
        (true, true) => format!("{rounds} round(s) of {seconds} s are too short to mean anything"),
    };
    Some(format!("{what}: take --seconds {SHORTEST_SECONDS} and --rounds {FEWEST_ROUNDS} at least"))
}

/// The samples of a percentile and beyond that make a figure of it.
const FEWEST_BEYOND: f64 = 10.0;

/// Returns whether so many samples are enough for a percentile, given as a fraction.
pub fn is_enough(samples: u64, fraction: f64) -> bool {
    // Rounded, because 1 - 0.999 is a little less than 0.001.
    (samples as f64 * (1.0 - fraction)).round() >= FEWEST_BEYOND
}

/// Returns a number with a space between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Returns nanoseconds in the unit that fits.
pub fn nanos(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..10_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} µs", nanos as f64 / 1e3),
        1_000_000..10_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.0} ms", nanos as f64 / 1e6),
    }
}

/// Returns millions a second with three significant digits.
pub fn millions(rate: f64) -> String {
    let rate = rate / 1e6;
    if rate >= 9.995 {
        format!("{rate:.1}")
    } else if rate >= 0.0995 {
        format!("{rate:.2}")
    } else {
        format!("{rate:.3}")
    }
}

/// The middle of some figures, and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Returns the spread of these figures; all 0 if there are none.
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let len = sorted.len();
        if len == 0 {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        }
        let median = (sorted[(len - 1) / 2] + sorted[len / 2]) / 2.0;
        Self { median, min: sorted[0], max: sorted[len - 1] }
    }
}

/// Where and of what something was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub processor: String,
    /// The threads that the hardware runs at once, for this process.
    pub hardware_threads: usize,
    /// Sockets of processors, if the system tells.
    pub sockets: Option<usize>,
    /// Nodes of memory, if the system tells.
    pub memory_nodes: Option<usize>,
    /// The operating system and the instruction set.
    pub system: String,
}

impl Machine {
    /// Returns this machine, as far as the system tells.
    pub fn this() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let values = |name: &str| -> Vec<String> {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .filter(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
                .collect()
        };
        let mut sockets = values("physical id");
        sockets.sort();
        sockets.dedup();
        let nodes = std::fs::read_dir("/sys/devices/system/node").ok().map(|entries| {
            entries
                .filter_map(Result::ok)
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter_map(|name| name.strip_prefix("node").map(str::to_owned))
                .filter(|number| number.parse::<u32>().is_ok())
                .count()
        });
        Self {
            processor: values("model name")
                .into_iter()
                .next()
                .unwrap_or_else(|| "processor not known".to_owned()),
            hardware_threads: std::thread::available_parallelism().map_or(1, usize::from),
            sockets: Some(sockets.len()).filter(|&count| count > 0),
            memory_nodes: nodes.filter(|&count| count > 0),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// Returns the processor and its number of threads, as far as the system tells.
pub fn machine() -> String {
    let Machine { processor, hardware_threads, .. } = Machine::this();
    format!("{processor}, {hardware_threads} hardware threads, {}", std::env::consts::OS)
}

/// Returns the commit of the sources that this program was built of, with `+` behind it if files
/// were changed since; nothing where there is no git or no repository any more.
pub fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=9", "HEAD"])?;
    // What the report itself writes is no change of what was measured.
    let changed = git(&["status", "--porcelain", "--", "../..", ":(exclude)../../docs"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_even_number_is_between() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(grouped(100_000), "100 000");
    }

    #[test]
    fn times_have_a_unit_that_fits() {
        assert_eq!(nanos(85), "85 ns");
        assert_eq!(nanos(1_500), "1.5 µs");
        assert_eq!(nanos(4_400_000), "4.4 ms");
    }

    #[test]
    fn best_is_what_no_other_is_better_than() {
        let figures = [Some(3.0), None, Some(1.0), Some(3.0)];
        assert_eq!(Better::Higher.best(&figures), [0, 3]);
        assert_eq!(Better::Lower.best(&figures), [2]);
        // One alone has won nothing.
        assert!(Better::Lower.best(&[None, Some(1.0)]).is_empty());
        assert!(Better::Higher.best(&[]).is_empty());
    }

    #[test]
    fn marks_stand_in_the_rows_they_are_for() {
        let mut table = Table::new(["cache", "a", "b"]);
        table.rows = vec![Row::default(); 4];
        table.mark(2, Better::Higher, &[1, 3], &[Some(1.0), Some(2.0)]);
        let marked: Vec<_> = table.rows.iter().map(|row| row.best.len()).collect();
        assert_eq!(marked, [0, 0, 0, 1]);
        assert_eq!(table.rows[3].best, [2]);
    }

    #[test]
    fn short_runs_are_warned_of() {
        assert_eq!(too_short(0.1, 3), None);
        assert!(too_short(0.01, 3).unwrap().contains("0.01 s"));
        assert!(too_short(1.0, 1).unwrap().contains("median"));
        assert!(too_short(0.01, 1).unwrap().contains("1 round"));
    }

    #[test]
    fn percentile_needs_samples_beyond_it() {
        assert!(is_enough(10_000, 0.999));
        assert!(!is_enough(9_000, 0.999));
        assert!(!is_enough(10_000, 0.9999));
    }

    #[test]
    fn machine_has_threads() {
        assert!(Machine::this().hardware_threads > 0);
        assert!(machine().contains("hardware threads"));
    }
}
