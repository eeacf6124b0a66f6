//! A drawing of the mesh, coloured by when the news of the first event arrived.

use std::f64::consts::TAU;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::args::{Args, flood_name};
use crate::checks;
use crate::scenario::Outcome;
use crate::topology::{Shape, side};

const SIZE: f64 = 1000.0;

type Point = (f64, f64);

/// The whole file.
pub(crate) fn draw(args: &Args, outcome: &Outcome, nodes: usize) -> String {
    let mut out = String::new();
    let picture = Picture { args, outcome, places: places(args, outcome, nodes) };
    picture.write(&mut out).expect("a string takes everything");
    out
}

struct Picture<'a> {
    args: &'a Args,
    outcome: &'a Outcome,
    places: Vec<Point>,
}

impl Picture<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let height = SIZE + 90.0;
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIZE} {height}\" font-family=\"sans-serif\">"
        )?;
        writeln!(out, "<rect width=\"{SIZE}\" height=\"{height}\" fill=\"white\"/>")?;
        self.links(out)?;
        self.nodes(out)?;
        self.legend(out)?;
        writeln!(out, "</svg>")
    }

    fn links(&self, out: &mut String) -> fmt::Result {
        let faint = (400.0 / self.outcome.drawn_links.len() as f64).clamp(0.06, 0.6);
        writeln!(out, "<g stroke=\"#556\" stroke-opacity=\"{faint:.2}\">")?;
        for &(a, b) in &self.outcome.drawn_links {
            let ((x1, y1), (x2, y2)) = (self.places[a], self.places[b]);
            writeln!(out, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")?;
        }
        writeln!(out, "</g>")
    }

    /// Filled by time of arrival; hollow where nothing arrived; ringed where it happened.
    fn nodes(&self, out: &mut String) -> fmt::Result {
        let radius = (220.0 / (self.places.len() as f64).sqrt()).clamp(2.0, 14.0);
        let last = self.last();
        for (node, (x, y)) in self.places.iter().enumerate() {
            let at = self.arrival(node);
            let fill = at.map_or_else(|| "white".to_owned(), |at| colour(at, last));
            let (ring, width) =
                if self.outcome.scene.contains(&node) { ("black", 3.0) } else { ("#667", 0.5) };
            let title = at.map_or_else(
                || "nothing".to_owned(),
                |at| format!("{:.1} ms", at.as_secs_f64() * 1e3),
            );
            writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{fill}\" stroke=\"{ring}\" \
                 stroke-width=\"{width}\"><title>n{node}: {title}</title></circle>"
            )?;
        }
        Ok(())
    }

    fn legend(&self, out: &mut String) -> fmt::Result {
        let (last, top) = (self.last(), SIZE + 15.0);
        for step in 0..100_u32 {
            let (x, fill) = (20.0 + f64::from(step) * 4.0, colour(last * step / 100, last));
            writeln!(
                out,
                "<rect x=\"{x}\" y=\"{top}\" width=\"4\" height=\"18\" fill=\"{fill}\"/>"
            )?;
        }
        let (args, last) = (self.args, last.as_secs_f64() * 1e3);
        let text = top + 45.0;
        writeln!(
            out,
            "<text x=\"430\" y=\"{}\" font-size=\"18\">0 to {last:.0} ms after the event; ringed: where it \
             happened</text>",
            top + 15.0
        )?;
        writeln!(
            out,
            "<text x=\"20\" y=\"{text}\" font-size=\"18\">{}, {} nodes, {}, {} flooding, seed {}</text>",
            args.topology.name(),
            self.places.len(),
            args.event.name(),
            flood_name(args.flood),
            args.seed
        )
    }

    fn arrival(&self, node: usize) -> Option<Duration> {
        *self.outcome.events.first()?.arrivals.get(node)?
    }

    fn last(&self) -> Duration {
        self.outcome.events.first().map_or(Duration::ZERO, |event| event.settled_after)
    }
}

/// From blue by green and yellow to red.
fn colour(at: Duration, last: Duration) -> String {
    let part = at.as_secs_f64() / last.as_secs_f64().max(1e-9);
    format!("hsl({:.0},85%,52%)", 230.0 * (1.0 - part.min(1.0)))
}

fn places(args: &Args, outcome: &Outcome, nodes: usize) -> Vec<Point> {
    let middle = (SIZE / 2.0, SIZE / 2.0);
    match args.topology {
        Shape::Line | Shape::Grid => in_rows(args.topology == Shape::Line, side(args.nodes), nodes),
        Shape::Ring | Shape::Full => on_circle(middle, 460.0, nodes),
        Shape::Star => std::iter::once(middle).chain(on_circle(middle, 460.0, nodes - 1)).collect(),
        Shape::Pods => in_pods(nodes),
        Shape::Barbell => {
            let half = args.nodes / 2;
            let left = on_circle((250.0, 500.0), 220.0, half);
            left.into_iter().chain(on_circle((750.0, 500.0), 220.0, nodes - half)).collect()
        }
        Shape::Tree => on_rings(&outcome.drawn_links, nodes, &[0]),
        Shape::Random | Shape::ScaleFree => on_rings(&outcome.drawn_links, nodes, &outcome.scene),
    }
}

fn on_circle((x, y): Point, radius: f64, count: usize) -> Vec<Point> {
    let angle = |at: usize| TAU * at as f64 / count.max(1) as f64;
    (0..count).map(|at| (x + radius * angle(at).cos(), y + radius * angle(at).sin())).collect()
}

/// Row by row; a line turns at the end of each.
fn in_rows(turns: bool, side: usize, nodes: usize) -> Vec<Point> {
    let step = 940.0 / side.max(2).saturating_sub(1) as f64;
    let place = |node: usize| {
        let (row, column) = (node / side, node % side);
        let column = if turns && row % 2 == 1 { side - 1 - column } else { column };
        (30.0 + column as f64 * step, 30.0 + row as f64 * step)
    };
    (0..nodes).map(place).collect()
}

fn in_pods(nodes: usize) -> Vec<Point> {
    let pods = nodes.div_ceil(crate::topology::POD);
    let centres = on_circle((SIZE / 2.0, SIZE / 2.0), if pods > 1 { 380.0 } else { 0.0 }, pods);
    let radius = if pods > 1 { (1000.0 / pods as f64).min(110.0) } else { 400.0 };
    let pods = centres.into_iter().map(|centre| on_circle(centre, radius, crate::topology::POD));
    pods.flatten().take(nodes).collect()
}

/// Ring by ring around where it began, in an order that keeps nodes near those they were reached
/// from.
fn on_rings(links: &[(usize, usize)], nodes: usize, starts: &[usize]) -> Vec<Point> {
    let far = checks::distances_from(nodes, links, starts);
    let deepest = far.iter().copied().filter(|far| *far != u32::MAX).max().unwrap_or(0).max(1);
    let mut angles = vec![0.0; nodes];
    let mut places = vec![(SIZE - 20.0, SIZE - 20.0); nodes];
    for ring in 0..=deepest {
        let mut members: Vec<usize> = (0..nodes).filter(|node| far[*node] == ring).collect();
        let parent = |node: usize| {
            let ends = links.iter().filter_map(|&(a, b)| match node {
                _ if a == node => Some(b),
                _ if b == node => Some(a),
                _ => None,
            });
            ends.filter(|end| far[*end] < ring).map(|end| angles[end]).fold(TAU, f64::min)
        };
        members.sort_by_cached_key(|node| (parent(*node) * 1e6) as u64);
        let inner = if ring == 0 && members.len() > 1 { 0.3 } else { f64::from(ring) };
        let radius = 470.0 * inner / f64::from(deepest);
        for (place, &node) in
            on_circle((SIZE / 2.0, SIZE / 2.0), radius, members.len()).into_iter().zip(&members)
        {
            places[node] = place;
        }
        for (at, &node) in members.iter().enumerate() {
            angles[node] = TAU * at as f64 / members.len() as f64;
        }
    }
    places
}
