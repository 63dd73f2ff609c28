//! Counts over time as bars, in SVG.

use maud::{Markup, html};

use crate::simulate::line::rfc3339;
use crate::simulate::report::Steps;

const WIDTH: u64 = 1000;
const HEIGHT: u64 = 180;
/// Height of the labels under the bars.
const LABELS: u64 = 18;
const SPARK: (u64, u64) = (160, 20);

/// From when to when steps reach, in nanoseconds since 1970.
pub(super) fn range(steps: &Steps) -> (u64, u64) {
    let count = steps.counts.len() as u64;
    (steps.start, steps.start + count * steps.width)
}

/// `part` before `all`, whose steps are the same; named `(all, part)`.
pub(super) fn bars(all: &Steps, part: &Steps, (name, of): (&str, &str)) -> Markup {
    let highest = all.counts.iter().copied().max().unwrap_or(0).max(1);
    let count = (all.counts.len() as u64).max(1);
    let (from, to) = range(all);
    let seconds = all.width / 1_000_000_000;
    let title =
        format!("{name} and how many of them were {of}, every {seconds} s; at most {highest}");
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + LABELS)) role="img" aria-label=(title) {
            title { (title) }
            line x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            @for (steps, class) in [(all, "all"), (part, "over")] {
                @for (index, value) in (0..).zip(&steps.counts) {
                    @if *value > 0 {
                        (bar(place(index, count, WIDTH), height(*value, highest, HEIGHT), HEIGHT, class))
                    }
                }
            }
            text x="0" y="12" { (highest) " " (name) " in " (seconds) " s" }
            text x="0" y=(HEIGHT + LABELS - 4) { (rfc3339(from)) }
            text x=(WIDTH) y=(HEIGHT + LABELS - 4) text-anchor="end" { (rfc3339(to)) }
        }
    }
}

/// A small one, between `from` and `to`.
pub(super) fn spark(steps: &Steps, from: u64, to: u64) -> Markup {
    let (width, height_) = SPARK;
    let highest = steps.counts.iter().copied().max().unwrap_or(0).max(1);
    let length = to.saturating_sub(from).max(1);
    let at = |index: u64| {
        let time = (steps.start + index * steps.width).saturating_sub(from);
        scaled(time.min(length), length, width)
    };
    html! {
        @if !steps.counts.is_empty() {
            svg viewBox=(format!("0 0 {width} {height_}")) role="img" aria-label="when it limited" {
                line x1="0" x2=(width) y1=(height_) y2=(height_) {}
                @for (index, value) in (0..).zip(&steps.counts) {
                    @if *value > 0 {
                        (bar((at(index), at(index + 1)), height(*value, highest, height_), height_, "over"))
                    }
                }
            }
        }
    }
}

/// Tenths of a unit, where the step with this index begins and ends.
fn place(index: u64, count: u64, width: u64) -> (u64, u64) {
    (scaled(index, count, width), scaled(index + 1, count, width))
}

/// `value` of `most` on a line of this length, in tenths.
fn scaled(value: u64, most: u64, length: u64) -> u64 {
    let tenths = u128::from(value) * u128::from(length) * 10 / u128::from(most.max(1));
    u64::try_from(tenths).unwrap_or(u64::MAX)
}

/// At least a unit: one request is seen.
fn height(value: u64, highest: u64, most: u64) -> u64 {
    scaled(value, highest, most).max(10)
}

fn bar((from, to): (u64, u64), height: u64, bottom: u64, class: &str) -> Markup {
    let width = to.saturating_sub(from).max(10);
    let top = (bottom * 10).saturating_sub(height);
    let units = |tenths: u64| format!("{}.{}", tenths / 10, tenths % 10);
    html! { rect.(class) x=(units(from)) y=(units(top)) width=(units(width)) height=(units(height)) {} }
}
