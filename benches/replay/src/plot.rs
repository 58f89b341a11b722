//! Draws charts, as SVG or PNG: curves over capacity, threads or percentiles, and bars.
//!
//! An SVG follows the reader's choice of dark or light: see [`STYLE`].

use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum as _;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::{Deserialize, Serialize};

use crate::peers::Kind;
use crate::report::{self, Spread};

const FONT: &str = "sans-serif";
/// The pixels of a panel.
const PANEL_SIZE: (u32, u32) = (760, 520);
/// The pixels of bars: of the picture's width, of a bar, and between two caches.
const BARS_WIDTH: u32 = 760;
const BAR_HEIGHT: i32 = 18;
const BAR_GAP: i32 = 10;
/// The pixels from a curve's end to its name, and from a name to the next one below.
const LEADER: i32 = 26;
const NAME_HEIGHT: i32 = 19;
/// From this ratio of the largest capacity to the smallest on, the scale is logarithmic.
const LOGARITHMIC_FROM: f64 = 8.0;
const MAX_MARKS: usize = 10;
/// A PNG has so many pixels for each one of an SVG, so that it is sharp on a screen of today.
const PNG_SCALE: i32 = 2;

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
    /// Fails if the directory is not there, so that this is known before the measurement.
    pub fn check(&self) -> Result<()> {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") && !parent.is_dir() => {
                bail!("{}: there is no such directory", parent.display())
            }
            _ => Ok(()),
        }
    }
}

/// A chart with curves.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Panel {
    /// What stands above.
    pub title: String,
    /// What stands below the title, such as "higher is better".
    pub note: String,
    /// From left to right.
    pub x: Axis,
    /// From below to above.
    pub y: Axis,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// An axis of a chart.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Axis {
    /// What it says.
    pub title: String,
    /// How numbers are placed.
    pub scale: Scale,
    /// How numbers are written.
    pub unit: Unit,
    /// The numbers to mark; round ones if there are none.
    pub marks: Vec<f64>,
}

impl Axis {
    /// Returns an axis.
    pub fn new(title: impl Into<String>, scale: Scale, unit: Unit) -> Self {
        Self { title: title.into(), scale, unit, marks: Vec::new() }
    }

    /// Returns an axis of numbers of threads.
    pub fn threads(threads: &[usize]) -> Self {
        let marks = threads.iter().map(|&threads| threads as f64).collect();
        Self { marks, ..Self::new("threads", Scale::Auto, Unit::Count) }
    }
}

/// How numbers are placed on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Scale {
    /// Evenly, from the least number to the greatest.
    Linear,
    /// Evenly, from zero.
    FromZero,
    /// By their logarithm.
    Log,
    /// By their logarithm if they are far apart, evenly otherwise.
    Auto,
    /// Fractions below 1, each 9 as far from the one before.
    Tail,
}

/// How numbers are written on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Unit {
    /// Plainly, large ones with M, G or T.
    Count,
    /// In percent, of numbers that are percents.
    Percent,
    /// In percent, of fractions.
    Fraction,
    /// As a duration, of nanoseconds.
    Nanos,
    /// In bytes.
    Bytes,
    /// With one digit behind the point.
    Mean,
}

/// The figures of one cache.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Curve {
    kind: Kind,
    points: Vec<Point>,
}

/// A figure of a curve.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Point {
    x: f64,
    y: Spread,
}

impl Curve {
    /// Makes a curve of points, in any order.
    pub fn new(kind: Kind, points: Vec<(f64, f64)>) -> Self {
        let exact = |y| Spread { median: y, min: y, max: y };
        Self::with_spread(kind, points.into_iter().map(|(x, y)| (x, exact(y))).collect())
    }

    /// Returns whether it has no points.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Makes a curve of points that are medians, in any order.
    pub fn with_spread(kind: Kind, mut points: Vec<(f64, Spread)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { kind, points: points.into_iter().map(|(x, y)| Point { x, y }).collect() }
    }
}

/// A chart with a bar for each cache, or several.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Bars {
    /// What stands above.
    pub title: String,
    /// What stands below the title.
    pub note: String,
    /// How figures are written.
    pub unit: Unit,
    /// Where a line is drawn, as for what was asked for.
    pub line: Option<f64>,
    /// What the bars of each cache are, if there are several.
    pub groups: Vec<String>,
    /// The caches with their figures, one for each group.
    pub bars: Vec<(Kind, Vec<Spread>)>,
}

/// A picture of one chart.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Chart {
    /// Curves.
    Curves(Panel),
    /// Bars.
    Bars(Bars),
}

impl Chart {
    /// Returns what stands above it.
    pub fn title(&self) -> &str {
        match self {
            Self::Curves(panel) => &panel.title,
            Self::Bars(bars) => &bars.title,
        }
    }

    /// Returns it drawn, as the text of an SVG.
    pub fn svg(&self) -> Result<String> {
        match self {
            Self::Curves(panel) => svg(std::slice::from_ref(panel)),
            Self::Bars(bars) => {
                fonts()?;
                let size = (BARS_WIDTH, bars.height());
                let mut text = String::new();
                bars.draw(&SVGBackend::with_string(&mut text, size).into_drawing_area())?;
                Ok(finished(&text, &bars.title))
            }
        }
    }
}

/// Draws the panels into the file, and says so.
pub fn draw(file: &File, panels: &[Panel]) -> Result<()> {
    let path = &file.path;
    match file.format {
        Format::Svg => svg(panels).and_then(|text| Ok(fs::write(path, text)?)),
        Format::Png => png(panels).and_then(|bytes| Ok(fs::write(path, bytes)?)),
    }
    .with_context(|| format!("{}: cannot be drawn", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn svg(panels: &[Panel]) -> Result<String> {
    fonts()?;
    let mut text = String::new();
    let backend = SVGBackend::with_string(&mut text, size(panels.len()));
    draw_all(&backend.into_drawing_area(), panels, Pixels(1))?;
    let titles: Vec<_> = panels.iter().map(|panel| panel.title.as_str()).collect();
    Ok(finished(&text, &titles.join("; ")))
}

fn png(panels: &[Panel]) -> Result<Vec<u8>> {
    const BYTES_PER_PIXEL: usize = 3;
    fonts()?;
    let (width, height) = size(panels.len());
    let (width, height) = (width * PNG_SCALE as u32, height * PNG_SCALE as u32);
    let mut pixels = vec![0; width as usize * height as usize * BYTES_PER_PIXEL];
    let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
    draw_all(&backend.into_drawing_area(), panels, Pixels(PNG_SCALE))?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(bytes)
}

fn fonts() -> Result<()> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font for pictures is damaged"))
}

/// Returns the size of a picture of so many panels.
fn size(panels: usize) -> (u32, u32) {
    let (rows, columns) = grid(panels);
    (columns as u32 * PANEL_SIZE.0, rows as u32 * PANEL_SIZE.1)
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

/// Adds to a drawn SVG its title, for readers who hear it, and [`STYLE`].
fn finished(svg: &str, title: &str) -> String {
    let Some(end) = svg.find("<svg").and_then(|start| Some(start + svg[start..].find('>')? + 1))
    else {
        return svg.to_owned();
    };
    let head = svg[..end].replacen("<svg", "<svg role=\"img\"", 1);
    let mut text = head;
    let _ = write!(text, "\n<title>{}</title>\n<style>{}</style>", escaped(title), style());
    text + &svg[end..]
}

/// Returns a text as it stands in XML and HTML.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Returns the rules by which a picture turns dark where the reader's screen is: each colour that
/// is drawn becomes one that reads on dark.
fn style() -> String {
    let mut rules = String::from("@media (prefers-color-scheme: dark){");
    for (light, dark) in COLORS.iter().chain(&PLAIN) {
        let RGBColor(r, g, b) = *light;
        let light = format!("#{r:02X}{g:02X}{b:02X}");
        for property in ["fill", "stroke"] {
            let _ = write!(rules, "svg [{property}=\"{light}\"]{{{property}:{dark}}}");
        }
    }
    rules + "}"
}

fn draw_all<B>(root: &DrawingArea<B, Shift>, panels: &[Panel], pixels: Pixels) -> Result<()>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly(grid(panels.len())).iter().zip(panels) {
        draw_panel(area, panel, pixels)?;
    }
    root.present()?;
    Ok(())
}

/// How many pixels are drawn for each one that is meant.
#[derive(Clone, Copy)]
struct Pixels(i32);

impl Pixels {
    fn of(self, pixels: i32) -> i32 {
        pixels * self.0
    }

    fn text(self, size: u32) -> TextStyle<'static> {
        (FONT, size * self.0 as u32).into()
    }

    /// Draws title and note, and returns what is left below.
    fn titled<B>(
        self,
        area: &DrawingArea<B, Shift>,
        title: &str,
        note: &str,
    ) -> Result<DrawingArea<B, Shift>>
    where
        B: DrawingBackend,
        B::ErrorType: 'static,
    {
        let area = area.margin(self.of(8), 0, 0, 0).titled(title, self.text(23))?;
        if note.is_empty() {
            return Ok(area);
        }
        Ok(area.titled(note, self.text(16).color(&GREY))?)
    }
}

fn draw_panel<B>(area: &DrawingArea<B, Shift>, panel: &Panel, pixels: Pixels) -> Result<()>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    let area = &pixels.titled(area, &panel.title, &panel.note)?;
    let names = pixels.text(18).pos(Pos::new(HPos::Left, VPos::Center));
    let mut widest = 0;
    for curve in &panel.curves {
        widest = widest.max(area.estimate_text_size(curve.kind.name(), &names)?.0);
    }
    // An SVG is shown with a font of the reader's, which may be wider than ours.
    let beside = widest + widest / 4 + pixels.of(LEADER) as u32;
    let points = || panel.curves.iter().flat_map(|curve| &curve.points);
    let across = Ruler::new(&panel.x, points().map(|point| point.x));
    let up = Ruler::new(&panel.y, points().flat_map(|point| [point.y.min, point.y.max]));
    let mut chart = ChartBuilder::on(area)
        .margin(pixels.of(12))
        .margin_right(pixels.of(12) as u32 + beside)
        .x_label_area_size(pixels.of(50))
        .y_label_area_size(pixels.of(74))
        .build_cartesian_2d(across, up)?;
    chart
        .configure_mesh()
        .x_desc(&panel.x.title)
        .y_desc(&panel.y.title)
        .x_labels(MAX_MARKS * 2)
        .y_labels(MAX_MARKS * 2)
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.12).stroke_width(pixels.0 as u32))
        .axis_style(BLACK.stroke_width(pixels.0 as u32))
        .label_style(pixels.text(17))
        .axis_desc_style(pixels.text(18))
        .x_label_formatter(&|&number| panel.x.unit.label(number))
        .y_label_formatter(&|&number| panel.y.unit.label(number))
        .draw()?;
    // Cortado comes last, above the others.
    let others = panel.curves.iter().filter(|curve| curve.kind != Kind::Cortado);
    let own = panel.curves.iter().filter(|curve| curve.kind == Kind::Cortado);
    for curve in others.chain(own) {
        let style = line_style(curve.kind, pixels);
        let points = curve.points.iter().map(|point| (point.x, point.y.median));
        let spreads = curve.points.iter().filter(|point| point.y.max > point.y.min);
        let thin = style.color.mix(0.5).stroke_width(pixels.0 as u32);
        chart.draw_series(
            spreads.map(|Point { x, y }| PathElement::new(vec![(*x, y.min), (*x, y.max)], thin)),
        )?;
        if curve.kind == Kind::Opt {
            chart.draw_series(DashedLineSeries::new(points, pixels.of(7), pixels.of(5), style))?;
        } else {
            // Percentiles are so many that their points would hide the curve.
            let size = if panel.x.scale == Scale::Tail { 0 } else { pixels.of(3) as u32 };
            chart.draw_series(LineSeries::new(points, style).point_size(size))?;
        }
    }
    // The names, beside the chart at the heights where the curves end, but none on another.
    let named: Vec<_> =
        panel.curves.iter().filter_map(|curve| Some((curve.kind, curve.points.last()?))).collect();
    let ends: Vec<(i32, i32)> =
        named.iter().map(|(_, end)| chart.backend_coord(&(end.x, end.y.median))).collect();
    let (left, top) = area.get_base_pixel();
    let (widths, heights) = chart.plotting_area().get_pixel_range();
    let wanted: Vec<i32> = ends.iter().map(|end| end.1).collect();
    let places = apart(&wanted, pixels.of(NAME_HEIGHT), heights.start, heights.end);
    for (((kind, _), end), place) in named.iter().zip(ends).zip(places) {
        let style = line_style(*kind, pixels);
        let start = (end.0 - left + pixels.of(4), end.1 - top);
        let stop = (widths.end - left + pixels.of(LEADER), place - top);
        let thin = style.color.mix(0.7).stroke_width(pixels.0 as u32);
        area.draw(&PathElement::new(vec![start, stop], thin))?;
        let name = names.color(&style.color);
        area.draw(&Text::new(kind.name(), (stop.0 + pixels.of(4), stop.1), name))?;
    }
    Ok(())
}

impl Bars {
    /// Returns the height of the picture.
    fn height(&self) -> u32 {
        let groups = self.groups.len().max(1) as i32;
        let bars = self.bars.len() as i32 * (groups * BAR_HEIGHT + BAR_GAP);
        (bars + if groups > 1 { 110 } else { 80 }) as u32
    }

    fn draw<B>(&self, root: &DrawingArea<B, Shift>) -> Result<()>
    where
        B: DrawingBackend,
        B::ErrorType: 'static,
    {
        root.fill(&WHITE)?;
        let pixels = Pixels(1);
        let area = &pixels.titled(root, &self.title, &self.note)?;
        let left = pixels.text(17).pos(Pos::new(HPos::Left, VPos::Center));
        let right = pixels.text(17).pos(Pos::new(HPos::Right, VPos::Center));
        let figures = pixels.text(15).pos(Pos::new(HPos::Left, VPos::Center));
        let mut names = 0;
        for (kind, _) in &self.bars {
            names = names.max(area.estimate_text_size(kind.name(), &right)?.0 as i32);
        }
        let start = 20 + names + names / 4;
        let room = (BARS_WIDTH as i32 - start - 150).max(1);
        let most = self.bars.iter().flat_map(|(_, spreads)| spreads).map(|spread| spread.max);
        let most = most.chain(self.line).fold(f64::MIN_POSITIVE, f64::max);
        let end = |figure: f64| start + (f64::from(room) * figure.max(0.0) / most).round() as i32;
        let mut top = 16;
        if self.groups.len() > 1 {
            let mut x = start;
            for (i, group) in self.groups.iter().enumerate() {
                let square = [(x, top - 7), (x + 14, top + 7)];
                area.draw(&Rectangle::new(square, GREY.mix(shade(i)).filled()))?;
                area.draw(&Text::new(group.as_str(), (x + 20, top), left.clone()))?;
                x += 40 + area.estimate_text_size(group, &left)?.0 as i32 * 9 / 8;
            }
            top += 26;
        }
        let first = top - BAR_GAP / 2;
        for (kind, spreads) in &self.bars {
            let color = color(*kind);
            let middle = top + BAR_HEIGHT * spreads.len() as i32 / 2;
            let name = right.color(&color);
            area.draw(&Text::new(kind.name(), (start - 8, middle), name))?;
            for (i, spread) in spreads.iter().enumerate() {
                let (y, to) = (top + BAR_HEIGHT / 2, end(spread.median));
                let bar = [(start, top + 2), (to, top + BAR_HEIGHT - 2)];
                area.draw(&Rectangle::new(bar, color.mix(shade(i)).filled()))?;
                let thin = BLACK.mix(0.7).stroke_width(1);
                let whisker = vec![(end(spread.min), y), (end(spread.max), y)];
                if spread.max > spread.min {
                    area.draw(&PathElement::new(whisker, thin))?;
                }
                let figure = self.unit.label(spread.median);
                let at = (to.max(end(spread.max)) + 8, y);
                area.draw(&Text::new(figure, at, figures.clone()))?;
                top += BAR_HEIGHT;
            }
            top += BAR_GAP;
        }
        if let Some(line) = self.line {
            let x = end(line);
            let down = vec![(x, first), (x, top - BAR_GAP / 2)];
            area.draw(&PathElement::new(down, BLACK.mix(0.6).stroke_width(1)))?;
        }
        root.present()?;
        Ok(())
    }
}

/// Returns how strongly the bars of a group are drawn.
fn shade(group: usize) -> f64 {
    [0.95, 0.65, 0.42, 0.25][group % 4]
}

/// Places numbers on an axis.
struct Ruler {
    scale: Scale,
    unit: Unit,
    /// The least and the greatest number.
    low: f64,
    high: f64,
    /// The ends of the axis, as places.
    from: f64,
    to: f64,
    wanted: Vec<f64>,
}

impl Ruler {
    fn new(axis: &Axis, numbers: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for number in numbers {
            low = low.min(number);
            high = high.max(number);
        }
        if low > high {
            (low, high) = (1.0, 1.0);
        }
        let scale = match axis.scale {
            Scale::Auto if high > low * LOGARITHMIC_FROM || high == low => Scale::Log,
            Scale::Auto => Scale::Linear,
            scale => scale,
        };
        let wanted = axis.marks.clone();
        let mut ruler = Self { scale, unit: axis.unit, low, high, from: 0.0, to: 0.0, wanted };
        let (from, to) = (ruler.place(low), ruler.place(high));
        let room = match axis.unit {
            // A curve over something begins and ends at the edges.
            Unit::Count | Unit::Fraction if axis.scale != Scale::FromZero => 0.0,
            _ => 0.05,
        };
        let room = ((to - from) * room).max(if to > from { 0.0 } else { 0.2 });
        (ruler.from, ruler.to) = match axis.scale {
            Scale::FromZero => (0.0, (to * 1.05).max(f64::MIN_POSITIVE)),
            _ => (from - room, to + room),
        };
        if axis.unit == Unit::Percent && scale == Scale::Linear {
            (ruler.from, ruler.to) = (ruler.from.max(0.0), ruler.to.min(100.0));
        }
        ruler
    }

    /// Returns where a number is.
    fn place(&self, number: f64) -> f64 {
        match self.scale {
            Scale::Log => number.max(1e-3).log10(),
            Scale::Tail => -(1.0 - number).max(1e-9).log10(),
            _ => number,
        }
    }

    /// Returns the number at a place.
    fn number(&self, place: f64) -> f64 {
        match self.scale {
            Scale::Log => 10_f64.powf(place),
            Scale::Tail => 1.0 - 10_f64.powf(-place),
            _ => place,
        }
    }

    fn marks(&self) -> Vec<f64> {
        let (low, high) = (self.number(self.from), self.number(self.to));
        let numbers = match self.scale {
            _ if !self.wanted.is_empty() => self.wanted.clone(),
            Scale::Log if self.low == self.high => vec![self.low],
            Scale::Log => decimal_marks(low, high),
            Scale::Tail => TAIL_MARKS.to_vec(),
            _ => even_marks(low, high),
        };
        let edge = (self.to - self.from) * 1e-9;
        let inside =
            |&number: &f64| (self.from - edge..=self.to + edge).contains(&self.place(number));
        numbers.into_iter().filter(inside).collect()
    }
}

impl Ranged for Ruler {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, number: &f64, pixels: (i32, i32)) -> i32 {
        let part = (self.place(*number) - self.from) / (self.to - self.from);
        pixels.0 + (f64::from(pixels.1 - pixels.0) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks()
    }

    fn range(&self) -> Range<f64> {
        self.number(self.from)..self.number(self.to)
    }
}

impl ValueFormatter<f64> for Ruler {
    fn format_ext(&self, number: &f64) -> String {
        self.unit.label(*number)
    }
}

impl Unit {
    /// Writes a number.
    pub fn label(self, number: f64) -> String {
        match self {
            Self::Count => short(number),
            Self::Percent => format!("{} %", digits(number)),
            Self::Fraction => format!("{} %", digits(number * 100.0)),
            Self::Nanos => report::nanos(number.round() as u64),
            Self::Bytes => format!("{number:.0} B"),
            Self::Mean => format!("{number:.1}"),
        }
    }
}

/// The percentiles that are marked, as fractions.
const TAIL_MARKS: [f64; 7] = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];

/// Returns how the curve of a cache is drawn.
fn line_style(kind: Kind, pixels: Pixels) -> ShapeStyle {
    let width = if kind == Kind::Cortado { 3 } else { 2 };
    color(kind).stroke_width(width * pixels.0 as u32).filled()
}

/// Returns the colour of a cache, which is the same in every picture.
fn color(kind: Kind) -> RGBColor {
    let others = &COLORS[1..];
    match kind {
        Kind::Opt => BLACK,
        Kind::Cortado => COLORS[0].0,
        _ => {
            let place = Kind::SPEED.iter().position(|&other| other == kind).unwrap_or_else(|| {
                let all = Kind::value_variants();
                Kind::SPEED.len() + all.iter().position(|&other| other == kind).unwrap_or(0)
            });
            others[(place + others.len() - 1) % others.len()].0
        }
    }
}

/// Returns round numbers from `low` to `high`, evenly apart.
fn even_marks(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    if span <= 0.0 || !span.is_finite() {
        return vec![low];
    }
    let power = 10_f64.powf((span / MAX_MARKS as f64).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| span / step <= MAX_MARKS as f64);
    let step = step.unwrap_or(power * 10.0);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Returns the round numbers from `low` to `high`: 1, 2 and 5 of each power of ten or, if these
/// are too many, the powers alone.
fn decimal_marks(low: f64, high: f64) -> Vec<f64> {
    let marks = |steps: &[f64]| -> Vec<f64> {
        (-3..=17)
            .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)))
            .filter(|mark| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(mark))
            .collect()
    };
    let fine = marks(&[1.0, 2.0, 5.0]);
    if fine.len() <= MAX_MARKS { fine } else { marks(&[1.0]) }
}

/// Returns a number without what is no digit of it, such as the 4e-16 of 0.1 + 0.2.
fn digits(number: f64) -> String {
    ((number * 1e6).round() / 1e6).to_string()
}

/// Returns a number in few characters.
fn short(number: f64) -> String {
    for (unit, name) in [(1e12, "T"), (1e9, "G"), (1e6, "M")] {
        if number >= unit {
            return format!("{} {name}", digits(number / unit));
        }
    }
    if number.round() >= 10.0 { report::grouped(number.round() as u64) } else { digits(number) }
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

const GREY: RGBColor = RGBColor(90, 90, 90);

/// What is drawn besides the caches, with what it becomes on dark.
const PLAIN: [(RGBColor, &str); 3] = [(WHITE, "#0d1117"), (BLACK, "#e6edf3"), (GREY, "#a9b1ba")];

/// The colours of the caches, cortado's first, with what they become on dark. They are dark and
/// light enough for text.
const COLORS: [(RGBColor, &str); 13] = [
    (RGBColor(208, 28, 36), "#ff6a6f"),
    (RGBColor(31, 119, 180), "#6cb6ff"),
    (RGBColor(44, 140, 44), "#57c757"),
    (RGBColor(225, 110, 0), "#ffa24d"),
    (RGBColor(128, 82, 180), "#bd93f9"),
    (RGBColor(0, 150, 160), "#3fd0da"),
    (RGBColor(140, 86, 75), "#cf9a8c"),
    (RGBColor(214, 90, 170), "#f093cf"),
    (RGBColor(120, 120, 20), "#c9c94a"),
    (RGBColor(20, 50, 130), "#8fa8ff"),
    (RGBColor(110, 110, 110), "#b8b8b8"),
    (RGBColor(0, 90, 60), "#4fc3a1"),
    (RGBColor(90, 30, 80), "#d28ac4"),
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
        assert_eq!(even_marks(0.0, 42.0), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]);
        assert_eq!(even_marks(96.1, 97.3).len(), 6);
        assert_eq!(even_marks(3.0, 3.0), [3.0]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(250.0), "250");
        assert_eq!(short(20_000.0), "20 000");
        assert_eq!(short(2_500_000.0), "2.5 M");
        assert_eq!(short(5e10), "50 G");
        assert_eq!(short(0.1 + 0.2), "0.3");
        assert_eq!(Unit::Fraction.label(0.999), "99.9 %");
        assert_eq!(Unit::Percent.label(60.000000000001), "60 %");
        assert_eq!(Unit::Nanos.label(1e3), "1.0 µs");
    }

    #[test]
    fn each_nine_is_as_far_as_the_one_before() {
        let axis = Axis::new("", Scale::Tail, Unit::Fraction);
        let ruler = Ruler::new(&axis, [0.5, 0.9999].into_iter());
        let labels: Vec<_> = ruler.marks().iter().map(|number| ruler.format_ext(number)).collect();
        assert_eq!(labels, ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        let step = ruler.place(0.99) - ruler.place(0.9);
        assert!((ruler.place(0.999) - ruler.place(0.99) - step).abs() < 1e-9);
    }

    #[test]
    fn caches_have_colours_of_their_own() {
        let mut colors: Vec<_> = Kind::SPEED.map(color).map(|c| (c.0, c.1, c.2)).into();
        colors.sort_unstable();
        colors.dedup();
        assert_eq!(colors.len(), Kind::SPEED.len());
    }

    #[test]
    fn picture_has_a_title_and_turns_dark() {
        let bars = Bars {
            title: "a < b".to_owned(),
            note: "lower is better".to_owned(),
            unit: Unit::Bytes,
            line: Some(50.0),
            groups: vec!["8 bytes".to_owned(), "100 bytes".to_owned()],
            bars: vec![(Kind::Cortado, vec![Spread { median: 40.0, min: 39.0, max: 41.0 }; 2])],
        };
        let text = Chart::Bars(bars).svg().unwrap();
        assert!(text.contains("<title>a &lt; b</title>"), "{text}");
        assert!(text.contains("prefers-color-scheme: dark") && text.contains("40 B"), "{text}");
        assert!(text.contains("8 bytes") && text.contains("cortado"), "{text}");
    }
}
