//! The chart: one small panel of bars for each figure, drawn as SVG by hand, for nothing more is needed.
//!
//! A bar is the median, the thin line across its end the spread. Each panel has its own scale, which begins at zero.

use crate::figures::Figure;
use crate::machine::Facts;
use crate::results::{OURS, Results, Series, number};
use std::fmt::Write as _;

const COLUMNS: usize = 3;
const PANEL_WIDTH: f64 = 400.0;
const BAR_HEIGHT: f64 = 16.0;
const BAR_STEP: f64 = 22.0;
const TITLE_HEIGHT: f64 = 30.0;
const LABEL_WIDTH: f64 = 100.0;
const VALUE_WIDTH: f64 = 70.0;
const MARGIN: f64 = 20.0;
const HEAD_HEIGHT: f64 = 60.0;

/// The SVG document.
pub fn chart(results: &Results, facts: &Facts) -> String {
    let (figures, peers) = (results.figures(), results.peers());
    let panel_height = TITLE_HEIGHT + BAR_STEP * peers.len() as f64 + MARGIN;
    let rows = figures.len().div_ceil(COLUMNS);
    let width = PANEL_WIDTH * COLUMNS as f64 + 2.0 * MARGIN;
    let height = HEAD_HEIGHT + panel_height * rows as f64 + MARGIN;
    let mut svg = String::new();
    let mut draw = |line: String| {
        svg.push_str(&line);
        svg.push('\n');
    };
    draw(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="12">"#
    ));
    draw(format!(r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##));
    draw(text(
        MARGIN,
        26.0,
        "start",
        "bold 16px system-ui, sans-serif",
        "Tidings beside its peers, medians of one run",
    ));
    let machine: Vec<&str> = facts.iter().take(4).map(|(_, value)| value.as_str()).collect();
    draw(text(MARGIN, 44.0, "start", "12px system-ui, sans-serif", &machine.join(" · ")));
    for (n, &figure) in figures.iter().enumerate() {
        let x = MARGIN + PANEL_WIDTH * (n % COLUMNS) as f64;
        let y = HEAD_HEIGHT + panel_height * (n / COLUMNS) as f64;
        draw(panel(results, figure, &peers, x, y));
    }
    draw("</svg>".to_owned());
    svg
}

fn panel(results: &Results, figure: &Figure, peers: &[&str], x: f64, y: f64) -> String {
    let direction = if figure.more_is_better { "more is better" } else { "less is better" };
    let unit = if figure.unit.is_empty() { String::new() } else { format!("{}, ", figure.unit) };
    let title = format!("{} ({unit}{direction})", figure.label);
    let mut svg = text(x, y + 16.0, "start", "bold 12px system-ui, sans-serif", &title);
    let measured = peers.iter().filter_map(|peer| results.find(figure, peer));
    let longest = measured.map(Series::max).fold(0.0, f64::max);
    let room = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH - MARGIN;
    let scale = if longest > 0.0 { room / longest } else { 0.0 };
    for (n, peer) in peers.iter().enumerate() {
        if let Some(series) = results.find(figure, peer) {
            bar(&mut svg, series, x, y + TITLE_HEIGHT + BAR_STEP * n as f64, scale);
        }
    }
    svg
}

fn bar(svg: &mut String, series: &Series, x: f64, y: f64, scale: f64) {
    let (left, middle) = (x + LABEL_WIDTH, y + BAR_HEIGHT / 2.0);
    let length = (series.median() * scale).max(1.0);
    let color = if series.peer == OURS { "#0b7285" } else { "#adb5bd" };
    let font = "12px system-ui, sans-serif";
    svg.push_str(&text(left - 6.0, y + 12.0, "end", font, series.peer));
    write!(
        svg,
        r#"<rect x="{left:.1}" y="{y:.1}" width="{length:.1}" height="{BAR_HEIGHT}" fill="{color}"/>"#
    )
    .expect("writing to a string cannot fail");
    let (from, to) = (left + series.min() * scale, left + series.max() * scale);
    write!(svg, r##"<path d="M{from:.1} {middle:.1}H{to:.1}" stroke="#212529" stroke-width="1.5"/>"##)
        .expect("writing to a string cannot fail");
    svg.push_str(&text(to.max(left + length) + 6.0, y + 12.0, "start", font, &number(series.median())));
}

fn text(x: f64, y: f64, anchor: &str, font: &str, content: &str) -> String {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" style="font: {font}" fill="#212529">{content}</text>"##
    )
}
