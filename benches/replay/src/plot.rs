//! Draws hit ratio over capacity: a panel for each trace, a curve for each cache.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use plotters::coord::Shift;
use plotters::coord::combinators::{BindKeyPoints as _, IntoLogRange as _};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::peers::Kind;
use crate::report;

/// A file that a picture goes into.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

impl FromStr for File {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let path = PathBuf::from(text);
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let format = match extension.as_str() {
            "svg" => Format::Svg,
            "png" => Format::Png,
            _ => bail!("the name must end in .svg or .png"),
        };
        Ok(Self { path, format })
    }
}

impl File {
    /// Fails if the directory is not there, so that this is known before the replay.
    pub fn check(&self) -> Result<()> {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") && !parent.is_dir() => {
                bail!("{}: there is no such directory", parent.display())
            }
            _ => Ok(()),
        }
    }
}

/// One chart of the picture.
pub struct Panel {
    /// What stands above.
    pub title: String,
    /// What the ratio is called.
    pub ratio: String,
    /// What the capacity is called.
    pub capacity: &'static str,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// The hit ratios of one cache.
pub struct Curve {
    kind: Kind,
    /// Capacity and percent, by capacity.
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// Makes a curve of points of capacity and percent, in any order.
    pub fn new(kind: Kind, mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { kind, points }
    }
}

/// Draws the panels into the file.
pub fn draw(file: &File, panels: &[Panel]) -> Result<()> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font for pictures is damaged"))?;
    let (rows, columns) = grid(panels.len());
    let size = (columns as u32 * PANEL_SIZE.0, rows as u32 * PANEL_SIZE.1);
    let path = &file.path;
    let drawn = match file.format {
        Format::Svg => draw_all(&SVGBackend::new(path, size).into_drawing_area(), panels),
        Format::Png => draw_all(&BitMapBackend::new(path, size).into_drawing_area(), panels),
    };
    drawn.with_context(|| format!("{}: cannot be drawn", path.display()))
}

/// Returns the rows and columns for so many panels.
fn grid(panels: usize) -> (usize, usize) {
    let columns = match panels {
        0 | 1 => 1,
        2..=4 => 2,
        _ => 3,
    };
    (panels.div_ceil(columns).max(1), columns)
}

fn draw_all<B>(root: &DrawingArea<B, Shift>, panels: &[Panel]) -> Result<()>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly(grid(panels.len())).iter().zip(panels) {
        let capacities =
            || panel.curves.iter().flat_map(|curve| &curve.points).map(|point| point.0);
        let (low, high) = (capacities().fold(f64::MAX, f64::min), capacities().fold(0.0, f64::max));
        if high > low * LOGARITHMIC_FROM {
            let marks = decimal_marks(low, high);
            draw_panel(area, panel, (low..high).log_scale().with_key_points(marks))?;
        } else if high > low {
            draw_panel(area, panel, low..high)?;
        } else {
            let around = low * 0.5..low * 1.5;
            draw_panel(area, panel, around.log_scale().with_key_points(vec![low]))?;
        }
    }
    root.present()?;
    Ok(())
}

fn draw_panel<B, X>(area: &DrawingArea<B, Shift>, panel: &Panel, x: X) -> Result<()>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let names = text_style(18).pos(Pos::new(HPos::Left, VPos::Center));
    let mut widest = 0;
    for curve in &panel.curves {
        widest = widest.max(area.estimate_text_size(curve.kind.name(), &names)?.0);
    }
    // An SVG is shown with a font of the reader's, which may be wider than ours.
    let beside = widest + widest / 4 + LEADER as u32;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, text_style(24))
        .margin(12)
        .margin_right(12 + beside)
        .x_label_area_size(50)
        .y_label_area_size(64)
        .build_cartesian_2d(x, percents(panel))?;
    chart
        .configure_mesh()
        .x_desc(panel.capacity)
        .y_desc(&panel.ratio)
        .x_labels(8)
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(text_style(17))
        .axis_desc_style(text_style(18))
        .x_label_formatter(&|&capacity| short(capacity))
        .y_label_formatter(&|percent| ((percent * 1e4).round() / 1e4).to_string())
        .draw()?;
    // Cortado comes last, above the others.
    let others = panel.curves.iter().enumerate().filter(|(_, curve)| curve.kind != Kind::Cortado);
    let own = panel.curves.iter().enumerate().filter(|(_, curve)| curve.kind == Kind::Cortado);
    for (i, curve) in others.chain(own) {
        let style = line_style(curve.kind, i);
        let points = curve.points.iter().copied();
        if curve.kind == Kind::Opt {
            chart.draw_series(DashedLineSeries::new(points, 7, 5, style))?;
        } else {
            chart.draw_series(LineSeries::new(points, style).point_size(3))?;
        }
    }
    // The names, each where its curve ends, but none on another.
    let ends: Vec<(i32, i32)> = panel
        .curves
        .iter()
        .filter_map(|curve| curve.points.last())
        .map(|end| chart.backend_coord(end))
        .collect();
    let (left, top) = area.get_base_pixel();
    let (_, heights) = chart.plotting_area().get_pixel_range();
    let wanted: Vec<i32> = ends.iter().map(|end| end.1).collect();
    let places = apart(&wanted, NAME_HEIGHT, heights.start, heights.end);
    for (i, ((curve, end), place)) in panel.curves.iter().zip(ends).zip(places).enumerate() {
        let style = line_style(curve.kind, i);
        let start = (end.0 - left + 4, end.1 - top);
        let stop = (end.0 - left + LEADER, place - top);
        area.draw(&PathElement::new(vec![start, stop], style.color.mix(0.7)))?;
        let name = names.color(&style.color);
        area.draw(&Text::new(curve.kind.name(), (stop.0 + 4, stop.1), name))?;
    }
    Ok(())
}

fn text_style(size: u32) -> TextStyle<'static> {
    (FONT, size).into()
}

/// Returns how the curve of a cache is drawn, the `i`th of its panel.
fn line_style(kind: Kind, i: usize) -> ShapeStyle {
    match kind {
        Kind::Opt => BLACK.stroke_width(2),
        Kind::Cortado => CORTADO.stroke_width(3),
        _ => COLORS[i % COLORS.len()].stroke_width(2),
    }
    .filled()
}

/// Returns the range of the percents, with some room at both ends.
fn percents(panel: &Panel) -> std::ops::Range<f64> {
    let percents = || panel.curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let low = percents().fold(100.0, f64::min);
    let high = percents().fold(0.0, f64::max);
    let room = ((high - low) * 0.05).max(0.01);
    (low - room).max(0.0)..(high + room).min(100.0)
}

/// Returns the round numbers from `low` to `high`: 1, 2 and 5 of each power of ten or, if these
/// are too many, the powers alone.
fn decimal_marks(low: f64, high: f64) -> Vec<f64> {
    let marks = |steps: &[f64]| -> Vec<f64> {
        (0..=17)
            .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)))
            .filter(|mark| (low..=high).contains(mark))
            .collect()
    };
    let fine = marks(&[1.0, 2.0, 5.0]);
    if fine.len() <= MAX_MARKS { fine } else { marks(&[1.0]) }
}

/// Returns a capacity in few characters.
fn short(capacity: f64) -> String {
    for (unit, name) in [(1e12, "T"), (1e9, "G"), (1e6, "M")] {
        if capacity >= unit {
            return format!("{} {name}", capacity / unit);
        }
    }
    report::grouped(capacity.round() as u64)
}

/// Returns places as near as possible to the wanted ones (least squares), but `gap` apart and from
/// `top` to `bottom`, if they fit there at all.
fn apart(wanted: &[i32], gap: i32, top: i32, bottom: i32) -> Vec<i32> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&i| wanted[i]);
    // Less the gaps above it, a place need only not be above the one before. So the places that
    // are too near to each other form a group at their mean, and so do groups.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    for (rank, &i) in order.iter().enumerate() {
        let mut group = (f64::from(wanted[i] - rank as i32 * gap), 1);
        while let Some(&(above, count)) = groups.last()
            && above > group.0
        {
            groups.pop();
            let sum = above * count as f64 + group.0 * group.1 as f64;
            let count = count + group.1;
            group = (sum / count as f64, count);
        }
        groups.push(group);
    }
    let lowest = (bottom - (wanted.len() as i32 - 1) * gap).max(top);
    let means = groups.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean, count));
    let mut places = vec![0; wanted.len()];
    for ((rank, &i), mean) in order.iter().enumerate().zip(means) {
        places[i] = (mean.round() as i32).clamp(top, lowest) + rank as i32 * gap;
    }
    places
}

const FONT: &str = "sans-serif";
/// The pixels of a panel.
const PANEL_SIZE: (u32, u32) = (760, 520);
/// The pixels from a curve's end to its name, and from a name to the next one below.
const LEADER: i32 = 26;
const NAME_HEIGHT: i32 = 19;
/// From this ratio of the largest capacity to the smallest on, the scale is logarithmic.
const LOGARITHMIC_FROM: f64 = 8.0;
const MAX_MARKS: usize = 10;

const CORTADO: RGBColor = RGBColor(208, 28, 36);
/// For the other caches: dark enough for text.
const COLORS: [RGBColor; 12] = [
    RGBColor(31, 119, 180),
    RGBColor(44, 140, 44),
    RGBColor(225, 110, 0),
    RGBColor(128, 82, 180),
    RGBColor(0, 150, 160),
    RGBColor(140, 86, 75),
    RGBColor(214, 90, 170),
    RGBColor(120, 120, 20),
    RGBColor(20, 50, 130),
    RGBColor(110, 110, 110),
    RGBColor(0, 90, 60),
    RGBColor(90, 30, 80),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_formats_are_drawn() {
        assert_eq!("a/b.SVG".parse::<File>().unwrap().format, Format::Svg);
        assert_eq!("b.png".parse::<File>().unwrap().format, Format::Png);
        for wrong in ["", "svg", "a.jpg", "a.svg.gz", "dir.svg/"] {
            assert_eq!(wrong.parse::<File>().is_ok(), wrong == "dir.svg/", "{wrong}");
        }
    }

    #[test]
    fn names_are_pushed_apart_as_little_as_possible() {
        assert_eq!(apart(&[50, 10, 90], 10, 0, 100), [50, 10, 90]);
        assert_eq!(apart(&[50, 50], 10, 0, 100), [45, 55]);
        assert_eq!(apart(&[52, 50, 10], 10, 0, 100), [56, 46, 10]);
        assert_eq!(apart(&[100, 100, 100], 10, 0, 100), [80, 90, 100]);
        assert_eq!(apart(&[3, 1], 10, 0, 100), [10, 0]);
        assert_eq!(apart(&[], 10, 0, 100), [0; 0]);
    }

    #[test]
    fn crowded_names_keep_their_order_and_gaps() {
        let wanted = [30, 31, 29, 80, 81, 30, 79, 30];
        let places = apart(&wanted, 10, 0, 100);
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|&i| places[i]);
        assert!(order.windows(2).all(|pair| places[pair[1]] - places[pair[0]] >= 10));
        assert!(order.windows(2).all(|pair| wanted[pair[0]] <= wanted[pair[1]]));
        assert!(places.iter().all(|place| (0..=100).contains(place)), "{places:?}");
    }

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!(decimal_marks(250.0, 8000.0), [500.0, 1000.0, 2000.0, 5000.0]);
        assert_eq!(decimal_marks(1.0, 1e6).len(), 7);
    }

    #[test]
    fn capacities_are_short() {
        assert_eq!(short(250.0), "250");
        assert_eq!(short(20_000.0), "20 000");
        assert_eq!(short(2_500_000.0), "2.5 M");
        assert_eq!(short(5e10), "50 G");
    }
}
