//! A small writer of charts: lines or bars over two axes, readable on light and on dark.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 56.0;

/// The reader's scheme decides; the chart brings its own ground, so that the two always fit.
const STYLE: &str = "\
svg{--ground:#fff;--ink:#1f2328;--grid:#d8dee4;--a:#0969da;--b:#bc4c00;--c:#1a7f37;--d:#8250df}\
@media(prefers-color-scheme:dark){svg{--ground:#0d1117;--ink:#e6edf3;--grid:#30363d;--a:#58a6ff;--b:#f0883e;--c:#3fb950;--d:#bc8cff}}\
text{fill:var(--ink);font:13px system-ui,sans-serif}.title{font-size:16px;font-weight:600}\
.ground{fill:var(--ground)}.grid{stroke:var(--grid);fill:none}.line{fill:none;stroke-width:2.5}";
const COLOURS: [&str; 4] = ["var(--a)", "var(--b)", "var(--c)", "var(--d)"];

/// Where values stand along an axis.
pub(crate) enum Scale {
    /// From the smallest to the largest, each power of the base as far from the next.
    Log,
    /// At these places, counted from 0.
    Names(Vec<String>),
}

#[derive(Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) x_scale: Scale,
    /// At most four are told apart.
    pub(crate) series: Vec<Series>,
    pub(crate) bars: bool,
}

impl Chart {
    /// The chart as a file; `None` if there is nothing to show.
    pub(crate) fn draw(&self) -> Option<String> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        points().next()?;
        let y = Axis::linear(points().map(|point| point.1), (HEIGHT - BOTTOM, TOP));
        let x = match &self.x_scale {
            Scale::Log => Axis::log(points().map(|point| point.0), (LEFT, WIDTH - RIGHT)),
            Scale::Names(names) => Axis::names(names, (LEFT, WIDTH - RIGHT)),
        };
        let mut svg = String::new();
        self.draw_onto(&mut svg, &x, &y).ok()?;
        Some(svg)
    }

    fn draw_onto(&self, svg: &mut String, x: &Axis, y: &Axis) -> std::fmt::Result {
        write!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">"#
        )?;
        writeln!(svg, "<title>{}</title><style>{STYLE}</style>", self.title)?;
        writeln!(svg, r#"<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>"#)?;
        writeln!(svg, r#"<text class="title" x="{LEFT}" y="26">{}</text>"#, self.title)?;
        let (floor, middle) = (HEIGHT - BOTTOM, f64::midpoint(TOP, HEIGHT - BOTTOM));
        for (value, text) in &y.ticks {
            let at = y.place(*value);
            writeln!(svg, r#"<path class="grid" d="M{LEFT} {at:.1}H{}"/>"#, WIDTH - RIGHT)?;
            writeln!(
                svg,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{text}</text>"#,
                LEFT - 8.0,
                at + 4.0
            )?;
        }
        for (value, text) in &x.ticks {
            let at = x.place(*value);
            writeln!(
                svg,
                r#"<text x="{at:.1}" y="{}" text-anchor="middle">{text}</text>"#,
                floor + 20.0
            )?;
        }
        let centre = f64::midpoint(LEFT, WIDTH - RIGHT);
        writeln!(
            svg,
            r#"<text x="{centre}" y="{}" text-anchor="middle">{}</text>"#,
            HEIGHT - 12.0,
            self.x
        )?;
        writeln!(
            svg,
            r#"<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{}</text>"#,
            self.y
        )?;
        let mut legend = LEFT;
        for (nth, (series, colour)) in self.series.iter().zip(COLOURS).enumerate() {
            writeln!(
                svg,
                r#"<rect x="{legend:.0}" y="46" width="12" height="12" fill="{colour}"/>"#
            )?;
            writeln!(svg, r#"<text x="{:.0}" y="57">{}</text>"#, legend + 18.0, series.name)?;
            legend += 40.0 + 7.2 * series.name.chars().count() as f64;
            match self.bars {
                true => self.draw_bars(svg, x, y, nth, series, colour)?,
                false => draw_line(svg, x, y, series, colour)?,
            }
        }
        writeln!(svg, "</svg>")
    }

    fn draw_bars(
        &self,
        svg: &mut String,
        x: &Axis,
        y: &Axis,
        nth: usize,
        series: &Series,
        colour: &str,
    ) -> std::fmt::Result {
        let group = (x.place(1.0) - x.place(0.0)) * 0.6;
        let width = group / self.series.len() as f64;
        for (place, value) in &series.points {
            let left = x.place(*place) - group / 2.0 + width * nth as f64;
            let top = y.place(*value);
            writeln!(
                svg,
                r#"<rect x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}" fill="{colour}"/>"#,
                width - 4.0,
                y.place(0.0) - top
            )?;
            let middle = left + (width - 4.0) / 2.0;
            let text = short(*value);
            writeln!(
                svg,
                r#"<text x="{middle:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
                top - 5.0
            )?;
        }
        Ok(())
    }
}

fn draw_line(
    svg: &mut String,
    x: &Axis,
    y: &Axis,
    series: &Series,
    colour: &str,
) -> std::fmt::Result {
    let places: Vec<_> =
        series.points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
    let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    writeln!(svg, r#"<path class="line" stroke="{colour}" d="M{}"/>"#, path.join("L"))?;
    // More points than these are a curve.
    for (x, y) in places.iter().filter(|_| places.len() <= 16) {
        writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#)?;
    }
    Ok(())
}

/// An axis: what stands where.
struct Axis {
    ticks: Vec<(f64, String)>,
    values: (f64, f64),
    places: (f64, f64),
    log: bool,
}

impl Axis {
    fn linear(values: impl Iterator<Item = f64>, places: (f64, f64)) -> Self {
        let most = values.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let power = 10_f64.powf((most / 5.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|part| part * power)
            .into_iter()
            .find(|step| step * 5.0 >= most);
        let step = step.unwrap_or(most / 5.0);
        let count = (most / step).ceil() as u32;
        let ticks = (0..=count)
            .map(|nth| f64::from(nth) * step)
            .map(|value| (value, short(value)))
            .collect();
        Self { ticks, values: (0.0, f64::from(count) * step), places, log: false }
    }

    /// With ticks at 1, 2 and 5 times the powers of ten.
    fn log(values: impl Iterator<Item = f64>, places: (f64, f64)) -> Self {
        let (least, most) = values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        let (least, most) = (least.max(f64::MIN_POSITIVE), most.max(least * 1.01));
        let powers = least.log10().floor() as i32..=most.log10().ceil() as i32;
        let ticks = powers
            .flat_map(|power| [1.0, 2.0, 5.0].map(|part| part * 10_f64.powi(power)))
            .filter(|value| (least..=most).contains(value))
            .map(|value| (value, short(value)))
            .collect();
        Self { ticks, values: (least, most), places, log: true }
    }

    fn names(names: &[String], places: (f64, f64)) -> Self {
        let ticks =
            names.iter().enumerate().map(|(nth, name)| (nth as f64, name.clone())).collect();
        Self { ticks, values: (-0.5, names.len() as f64 - 0.5), places, log: false }
    }

    fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| if self.log { value.max(self.values.0).ln() } else { value };
        let (from, to) = (scaled(self.values.0), scaled(self.values.1));
        let part = (scaled(value) - from) / (to - from);
        self.places.0 + part * (self.places.1 - self.places.0)
    }
}

/// A number with no more digits than it needs.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 10.0 || value.fract() == 0.0 => 0,
        value if value >= 1.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}
