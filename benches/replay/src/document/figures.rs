//! The figures of several caches, as the rows and columns of a table.

use super::Standing;
use crate::peers::Kind;
use crate::report::{Better, Row, Spread, Table};

/// A column of figures, one for each cache.
pub struct Column {
    /// What stands above.
    pub head: String,
    /// Which figures are good.
    pub better: Better,
    /// The figures; `None` where there is none.
    pub spreads: Vec<Option<Spread>>,
    /// Whether the cache of this place may be called the best.
    pub competes: fn(Kind) -> bool,
    /// How a figure is written.
    pub show: fn(f64) -> String,
}

impl Column {
    /// Returns a column in which those compete that keep to a capacity.
    pub fn new(
        head: impl Into<String>,
        better: Better,
        show: fn(f64) -> String,
        spreads: Vec<Option<Spread>>,
    ) -> Self {
        Self { head: head.into(), better, spreads, competes: Kind::is_bounded, show }
    }

    /// Writes a figure with its spread.
    fn text(&self, spread: Spread) -> String {
        let [median, min, max] =
            [spread.median, spread.min, spread.max].map(|figure| (self.show)(figure));
        if min == max { median } else { format!("{median} ({min}–{max})") }
    }

    /// Returns the figures of those that compete.
    fn competing(&self, kinds: &[Kind]) -> Vec<Option<f64>> {
        let figures = kinds.iter().zip(&self.spreads);
        figures
            .map(|(&kind, spread)| spread.filter(|_| (self.competes)(kind)))
            .map(|spread| spread.map(|spread| spread.median))
            .collect()
    }

    /// Returns cortado beside the best of the others.
    pub fn standing(&self, kinds: &[Kind], what: impl Into<String>) -> Option<Standing> {
        let own = kinds.iter().position(|&kind| kind == Kind::Cortado)?;
        let own = self.spreads[own]?;
        let mut others = self.competing(kinds);
        for (kind, figure) in kinds.iter().zip(&mut others) {
            figure.take_if(|_| !kind.is_rival());
        }
        let figures = || others.iter().enumerate().filter_map(|(i, figure)| Some((i, (*figure)?)));
        let (place, best) = match self.better {
            Better::Higher => figures().max_by(|a, b| a.1.total_cmp(&b.1)),
            Better::Lower => figures().min_by(|a, b| a.1.total_cmp(&b.1)),
        }?;
        let (own, best) = (own.median, best);
        let [own_text, best_text] = [own, best].map(self.show);
        // What reads the same is the same.
        let is_level = own_text == best_text;
        let is_ahead = match self.better {
            Better::Higher => own > best,
            Better::Lower => own < best,
        };
        Some(Standing {
            what: what.into(),
            better: self.better,
            own_is_best: is_ahead || is_level,
            other_is_best: !is_ahead || is_level,
            own: own_text,
            best: best_text,
            who: kinds[place],
        })
    }
}

/// Returns the table of these columns: a row for each cache that has a figure, the best marked.
pub fn table(kinds: &[Kind], columns: &[Column]) -> Table {
    let heads = columns.iter().map(|column| column.head.as_str());
    let mut table = Table::new(std::iter::once("cache").chain(heads));
    for (i, &kind) in kinds.iter().enumerate() {
        let figures = columns.iter().map(|column| {
            column.spreads[i].map_or_else(|| "–".to_owned(), |spread| column.text(spread))
        });
        let cells = std::iter::once(kind.name().to_owned()).chain(figures).collect();
        table.rows.push(Row::of(kind, cells));
    }
    let all: Vec<usize> = (0..kinds.len()).collect();
    for (i, column) in columns.iter().enumerate() {
        table.mark(1 + i, column.better, &all, &column.competing(kinds));
    }
    let mut has_any = (0..kinds.len()).map(|i| columns.iter().any(|c| c.spreads[i].is_some()));
    table.rows.retain(|_| has_any.next().unwrap_or(true));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 4] = [Kind::Cortado, Kind::Moka, Kind::Papaya, Kind::Lru];

    fn column(better: Better) -> Column {
        let figures = [3.0, 4.0, 9.0, 1.0];
        let spreads =
            figures.map(|figure| Some(Spread { median: figure, min: figure - 1.0, max: figure }));
        Column::new("ops", better, |figure| format!("{figure:.0}"), spreads.into())
    }

    #[test]
    fn map_wins_nothing() {
        let table = table(&KINDS, &[column(Better::Higher)]);
        assert_eq!(table.rows[1].best, [1]);
        assert!(table.rows[2].best.is_empty());
        assert_eq!(table.rows[0].cells, ["cortado", "3 (2–3)"]);
        assert!(table.rows[0].is_own);
    }

    #[test]
    fn standing_is_against_the_best_rival() {
        let standing = column(Better::Higher).standing(&KINDS, "speed").unwrap();
        assert_eq!((standing.who, standing.own_is_best), (Kind::Moka, false));
        let standing = column(Better::Lower).standing(&KINDS, "time").unwrap();
        assert_eq!((standing.who, standing.best.as_str()), (Kind::Lru, "1"));
        // Both are the best if they read the same.
        let mut level = column(Better::Lower);
        level.spreads[3] = Some(Spread { median: 3.1, min: 3.0, max: 4.0 });
        let standing = level.standing(&KINDS, "level").unwrap();
        assert!(standing.own_is_best && standing.other_is_best);
        assert!(column(Better::Lower).standing(&KINDS[..1], "alone").is_none());
        assert!(column(Better::Lower).standing(&KINDS[1..], "others").is_none());
    }

    #[test]
    fn cache_without_figures_has_no_row() {
        let mut column = column(Better::Lower);
        column.spreads[1] = None;
        let table = table(&KINDS, &[column]);
        assert_eq!(table.rows.len(), 3);
        assert_eq!(table.rows[2].best, [1]);
    }
}
