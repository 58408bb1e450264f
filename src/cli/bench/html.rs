//! One page with plots: what several servers did under the same load, to be looked at and passed on.
//!
//! The page is one file and asks nothing of anyone: the plots are inline SVG, the few lines of style are in it, and there is
//! no script. Both axes of the latency plot are logarithmic: the tail is what is looked for.
//!
//! Runs on: the main thread; pure.

use super::args::{BenchArgs, Target};
use super::outcome::{Outcome, PERCENTILES, histogram};
use super::report::{self, Row, short};
use std::fmt::Write;

/// Colours that differ for most eyes, in the order of the targets.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#555555"];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child{text-align:left}code{background:#f4f4f4;padding:.1em .3em;overflow-wrap:anywhere}\
    svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#444}.warn{color:#a00}\
    .key{display:inline-block;width:1em;height:.6em;margin-right:.4em}";

/// The whole page. `command` is what was typed.
pub fn page(command: &str, args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) -> String {
    let rows: Vec<Row> = results.iter().map(|outcomes| report::row(outcomes)).collect();
    let title = escaped(&report::title(args, results));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>ostler bench: {title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p><code>{}</code></p>\n",
        escaped(command)
    );
    table(&mut page, targets, &rows);
    for (target, row) in targets.iter().zip(&rows).skip(1) {
        let (ours, theirs) = (escaped(&targets[0].name), escaped(&target.name));
        let _ = writeln!(page, "<p>{ours} to {theirs}: {}</p>", escaped(&report::ratios(&rows[0], row)));
    }
    notes(&mut page, targets, results);
    if results.iter().flatten().any(|outcome| outcome.answered > 0) {
        page.push_str("<h2>Latency</h2>\n<p>All rounds together; the slowest one in so many to the right.</p>\n");
        page.push_str(&latency_plot(results));
        page.push_str("<h2>Throughput over time</h2>\n<p>Replies in each second, one line a round.</p>\n");
        page.push_str(&throughput_plot(results));
    }
    page.push_str("</body></html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn table(page: &mut String, targets: &[Target], rows: &[Row]) {
    let figures: Vec<&str> = rows.first().map_or(Vec::new(), |row| row.figures.iter().map(|(name, _)| *name).collect());
    let mut heads = vec!["a second".to_string(), "CPU us/op".to_string()];
    let percentile = |&at: &f64| if at == 100.0 { "max us".to_string() } else { format!("p{at} us") };
    heads.extend(PERCENTILES.iter().map(percentile));
    heads.extend(figures.iter().map(|name| name.replace('_', " ")));
    page.push_str("<table><tr><th>medians</th>");
    for head in heads {
        let _ = write!(page, "<th>{head}</th>");
    }
    page.push_str("</tr>\n");
    for (index, (target, row)) in targets.iter().zip(rows).enumerate() {
        let key = format!("<span class=\"key\" style=\"background:{}\"></span>", colour(index));
        let _ = write!(page, "<tr><td>{key}{}</td><td>{:.0}</td>", escaped(&target.name), row.throughput);
        let _ = write!(page, "<td>{}</td>", row.cpu_us.map_or("-".into(), |us| format!("{us:.2}")));
        for value in &row.percentiles {
            let _ = write!(page, "<td>{}</td>", short(*value));
        }
        for name in &figures {
            let value = row.figures.iter().find(|(other, _)| other == name).map_or(f64::NAN, |&(_, value)| value);
            let _ = write!(page, "<td>{}</td>", short(value));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

/// What a reader must know to judge the figures.
fn notes(page: &mut String, targets: &[Target], results: &[Vec<Outcome>]) {
    for (target, outcomes) in targets.iter().zip(results) {
        let name = escaped(&target.name);
        for (round, outcome) in outcomes.iter().enumerate() {
            let wrong = outcome.first_wrong.as_ref().map(|wrong| format!("{} wrong answers: {wrong}", outcome.wrong));
            let errors = outcome.errors.iter().map(|(problem, count)| format!("{count} times: {problem}"));
            for note in wrong.into_iter().chain(errors).chain(outcome.own_bottleneck()) {
                let _ = writeln!(page, "<p class=\"warn\">{name}, round {round}: {}</p>", escaped(&note));
            }
        }
    }
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
/// Room for the axis' texts.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 30.0;

/// Where a value stands, both from 0 to 1.
fn at(x: f64, y: f64) -> (f64, f64) {
    (LEFT + x * (WIDTH - LEFT - 10.0), 10.0 + (1.0 - y) * (HEIGHT - BOTTOM - 10.0))
}

struct Plot(String);

impl Plot {
    fn new(label: &str) -> Plot {
        Plot(format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n"))
    }

    /// A line across, with its value at the left.
    fn across(&mut self, y: f64, text: &str) {
        let ((x1, y1), (x2, _)) = (at(0.0, y), at(1.0, y));
        let _ = writeln!(
            self.0,
            "<path d=\"M{x1:.1} {y1:.1}H{x2:.1}\" stroke=\"#e4e4e4\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{text}</text>",
            x1 - 6.0,
            y1 + 4.0
        );
    }

    fn below(&mut self, x: f64, text: &str) {
        let (x, y) = at(x, 0.0);
        let _ = writeln!(self.0, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>", y + 20.0);
    }

    fn line(&mut self, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
        let mut path = String::new();
        for (index, (x, y)) in points.enumerate() {
            let (x, y) = at(x.clamp(0.0, 1.0), y.clamp(0.0, 1.0));
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        let _ = writeln!(
            self.0,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" stroke-opacity=\".85\"/>"
        );
    }

    fn close(self) -> String {
        self.0 + "</svg>\n"
    }
}

/// Latency (logarithmic) by percentile, drawn as how rare it is: 1 in 2, in 10, in 100, ...
fn latency_plot(results: &[Vec<Outcome>]) -> String {
    let mut plot = Plot::new("latency by percentile");
    let merged: Vec<_> = results
        .iter()
        .map(|outcomes| {
            let mut all = histogram();
            for outcome in outcomes {
                all.add(&outcome.latencies).expect("all histograms have the same bounds");
            }
            all
        })
        .collect();
    let most = merged.iter().map(|all| all.len()).max().unwrap_or(1).max(10) as f64;
    let decades = most.log10().ceil().min(7.0);
    let us = |nanos: u64| (nanos as f64 / 1e3).max(1.0).log10();
    let low = merged.iter().filter(|all| !all.is_empty()).map(|all| us(all.min()).floor()).fold(6.0, f64::min);
    let high = merged.iter().map(|all| us(all.max()).ceil()).fold(low + 1.0, f64::max);
    for step in low as i32..=high as i32 {
        let text = match step {
            ..3 => format!("{} us", 10u64.pow(step.max(0) as u32)),
            3..6 => format!("{} ms", 10u64.pow(step as u32 - 3)),
            _ => format!("{} s", 10u64.pow(step as u32 - 6)),
        };
        plot.across((f64::from(step) - low) / (high - low), &text);
    }
    for decade in 0..=decades as i32 {
        let text = if decade == 0 { "all".into() } else { format!("{}%", 100.0 - 100.0 / 10f64.powi(decade)) };
        plot.below(f64::from(decade) / decades, &text);
    }
    for (index, all) in merged.iter().enumerate().filter(|(_, all)| !all.is_empty()) {
        let points = (0..=200).map(|step| {
            let rarity = f64::from(step) / 200.0 * decades;
            let value = all.value_at_quantile(1.0 - 10f64.powf(-rarity));
            (rarity / decades, (us(value) - low) / (high - low))
        });
        plot.line(points, colour(index));
    }
    plot.close()
}

fn throughput_plot(results: &[Vec<Outcome>]) -> String {
    let mut plot = Plot::new("throughput over time");
    // The last second of a load may have been cut short.
    let whole = |outcome: &Outcome| outcome.per_second.len().min(outcome.seconds.floor().max(1.0) as usize);
    let most = results.iter().flatten().flat_map(|outcome| outcome.per_second.iter().copied()).max().unwrap_or(0);
    let seconds = results.iter().flatten().map(whole).max().unwrap_or(1).max(2);
    let step = nice(most as f64 / 4.0);
    let top = (most as f64 / step).ceil().max(1.0) * step;
    for line in 0..=(top / step).round() as u32 {
        plot.across(f64::from(line) * step / top, &short(f64::from(line) * step));
    }
    let span = (seconds - 1) as f64;
    let tick = nice(span / 8.0).max(1.0);
    for number in 0..=(span / tick) as u32 {
        plot.below(f64::from(number) * tick / span, &format!("{} s", f64::from(number) * tick));
    }
    for (index, outcomes) in results.iter().enumerate() {
        for outcome in outcomes {
            let points = outcome.per_second[..whole(outcome)].iter().enumerate();
            plot.line(points.map(|(second, &count)| (second as f64 / span, count as f64 / top)), colour(index));
        }
    }
    plot.close()
}

/// The next of 1, 2, 5, 10, ... that is not below `value`.
fn nice(value: f64) -> f64 {
    let base = 10f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * base).find(|&step| step >= value).unwrap_or(10.0 * base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    #[test]
    fn the_page_is_whole_and_asks_nobody_for_anything() {
        let args = Line::parse_from(["bench", "get", "--compare", "a:1=<one>", "--compare", "b:2=two"]).args;
        let targets = super::super::args::targets(&args).unwrap();
        let results: Vec<Vec<Outcome>> = (0..2u64)
            .map(|target| {
                let mut outcome = Outcome::new();
                for at in 0..3_000 {
                    let from = Now(at * 1_000_000);
                    outcome.answer(from, from.plus(std::time::Duration::from_micros(100 + target * at)), Now::START);
                }
                outcome.seconds = 3.0;
                outcome.figure("gap_ms", 2.5);
                vec![outcome]
            })
            .collect();
        let page = page("ostler bench get", &args, &targets, &results);
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("</svg>").count(), 2);
        assert_eq!(page.matches("fill=\"none\"").count(), 4, "two lines in each plot");
        assert!(page.contains("&lt;one&gt;") && !page.contains("<one>") && page.contains("gap ms"));
        for foreign in ["http://", "https://", "<script", "<link", "url(", "NaN", "inf"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn an_empty_result_makes_a_page_as_well() {
        let args = Line::parse_from(["bench", "get"]).args;
        let targets = super::super::args::targets(&args).unwrap();
        let page = page("", &args, &targets, &[vec![Outcome::new()]]);
        assert!(page.ends_with("</body></html>\n") && !page.contains("NaN"));
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([3.0, 1.0, 70.0, 1_200.0, 0.2].map(nice), [5.0, 1.0, 100.0, 2_000.0, 1.0]);
    }
}
