//! What a measurement found: a table for people, JSON and CSV for programs.
//!
//! Runs on: the main thread; pure but for writing the files.

use super::args::{BenchArgs, Target, Workload};
use super::html;
use super::outcome::{Outcome, PERCENTILES, median};
use crate::cli::output::say;
use crate::fatal::Fatal;
use std::fmt::Write;
use std::path::Path;

/// One line as soon as a measurement is done, and whatever a reader must know to judge it.
pub fn line(name: &str, round: u32, outcome: &Outcome) -> Result<(), Fatal> {
    let mut parts = Vec::new();
    if outcome.answered > 0 {
        parts.push(format!("{:.0} a second", outcome.throughput()));
        parts.extend(outcome.server_cpu_us().map(|us| format!("{us:.2} us CPU each")));
        parts.push(format!("p50 {:.0} us", outcome.percentile_us(50.0)));
        parts.push(format!("p99 {:.0} us", outcome.percentile_us(99.0)));
    }
    parts.extend(outcome.figures.iter().map(|figure| format!("{} {}", figure.name, short(figure.value))));
    say!("{name:>16} round {round}: {}", parts.join(", "))?;
    if let Some(wrong) = &outcome.first_wrong {
        say!("{name:>16} {} WRONG answers, the first: {wrong}", outcome.wrong)?;
    }
    for (problem, count) in &outcome.errors {
        say!("{name:>16} {count} times: {problem}")?;
    }
    if let Some(reason) = outcome.own_bottleneck() {
        say!("{name:>16} {reason}")?;
    }
    Ok(())
}

/// The medians of a target's rounds.
pub struct Row {
    pub throughput: f64,
    pub cpu_us: Option<f64>,
    /// As in `PERCENTILES`, microseconds.
    pub percentiles: Vec<f64>,
    /// By name, in the order of the first round.
    pub figures: Vec<(&'static str, f64)>,
}

pub fn row(outcomes: &[Outcome]) -> Row {
    let cpu: Option<Vec<f64>> = outcomes.iter().map(Outcome::server_cpu_us).collect();
    let names = outcomes.first().map_or(Vec::new(), |first| first.figures.iter().map(|figure| figure.name).collect());
    let of_all = |of: &dyn Fn(&Outcome) -> f64| median(outcomes.iter().map(of).collect());
    Row {
        throughput: of_all(&Outcome::throughput),
        cpu_us: cpu.map(median),
        percentiles: PERCENTILES.iter().map(|&at| of_all(&|outcome| outcome.percentile_us(at))).collect(),
        figures: names
            .into_iter()
            .map(|name| (name, median(outcomes.iter().filter_map(|outcome| outcome.get(name)).collect())))
            .collect(),
    }
}

/// The load in a few words.
pub fn title(args: &BenchArgs, results: &[Vec<Outcome>]) -> String {
    let rounds = results.first().map_or(0, Vec::len);
    let seconds = results.iter().flatten().map(|outcome| outcome.seconds).fold(0.0, f64::max);
    let pace = match (args.workload, args.rate) {
        (Workload::Replay, _) if args.speed > 0.0 => format!("{} times as fast as recorded", args.speed),
        (Workload::Idle | Workload::Storm, _) => format!("{} watches each", args.watches),
        (Workload::WatchMany, _) => format!("{} znodes", args.keys()),
        (_, Some(rate)) => format!("{rate} requests a second (open loop)"),
        (_, None) => format!("{} in flight each", args.depth),
    };
    let times = if rounds == 1 { format!("{seconds:.1} s") } else { format!("{rounds} rounds of {seconds:.1} s") };
    let name = args.workload.name();
    if args.workload == Workload::Replay {
        return format!("{name}, {pace}, {times}");
    }
    format!("{name}, {} connections, {pace}, {} bytes, {times}", args.connections(), args.size)
}

/// A number with as many digits as matter.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "-".into(),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Medians over the rounds, and the first server's ratio to each other.
pub fn table(args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) -> Result<(), Fatal> {
    say!("\n{} (medians; latency in us)", title(args, results))?;
    let rows: Vec<Row> = results.iter().map(|outcomes| row(outcomes)).collect();
    if rows.iter().any(|row| row.throughput > 0.0) {
        say!(
            "{:>16} {:>12} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "",
            "a second",
            "CPU us/op",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "max"
        )?;
        for (target, row) in targets.iter().zip(&rows) {
            let cpu = row.cpu_us.map_or("-".into(), |us| format!("{us:.2}"));
            let values: String = row.percentiles.iter().map(|value| format!(" {value:>9.0}")).collect();
            say!("{:>16} {:>12.0} {cpu:>10}{values}", target.name, row.throughput)?;
        }
    }
    let Some(first) = rows.first() else { return Ok(()) };
    for (name, _) in &first.figures {
        let of_all = targets.iter().zip(&rows).map(|(target, row)| {
            let value = row.figures.iter().find(|(other, _)| other == name).map_or(f64::NAN, |&(_, value)| value);
            format!("  {} {}", target.name, short(value))
        });
        say!("{name:>24}{}", of_all.collect::<String>())?;
    }
    for (target, row) in targets.iter().zip(&rows).skip(1) {
        say!("{} to {}: {}", targets[0].name, target.name, ratios(first, row))?;
    }
    Ok(())
}

/// What the first row is in terms of another.
pub fn ratios(first: &Row, other: &Row) -> String {
    let mut parts = Vec::new();
    let mut part = |name: &str, ours: f64, theirs: f64| {
        if ours > 0.0 && theirs > 0.0 {
            parts.push(format!("{name} x {}", short(ours / theirs)));
        }
    };
    part("throughput", first.throughput, other.throughput);
    if let (Some(ours), Some(theirs)) = (first.cpu_us, other.cpu_us) {
        part("CPU per operation", ours, theirs);
    }
    for (name, at) in [("p50", 0), ("p99", 2), ("p99.9", 3)] {
        part(name, first.percentiles[at], other.percentiles[at]);
    }
    for (name, ours) in &first.figures {
        if let Some((_, theirs)) = other.figures.iter().find(|(other, _)| other == name) {
            part(name, *ours, *theirs);
        }
    }
    if parts.is_empty() { "nothing to compare".into() } else { parts.join(", ") }
}

/// Writes the files that were asked for.
pub fn files(args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) -> Result<(), Fatal> {
    if let Some(path) = &args.json {
        save(path, &json(args, targets, results))?;
    }
    if let Some(path) = &args.csv {
        save(path, &csv(args, targets, results))?;
    }
    if let Some(path) = &args.html {
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        save(path, &html::page(&format!("ostler {command}"), args, targets, results))?;
    }
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<(), Fatal> {
    std::fs::write(path, text).map_err(|source| Fatal::Io { file: path.to_owned(), source })
}

/// Text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// A JSON number; what is none becomes null.
fn number(value: f64) -> String {
    if value.is_finite() { format!("{}", (value * 1e4).round() / 1e4) } else { "null".into() }
}

/// The name of a percentile's column.
fn column(percentile: f64) -> String {
    if percentile == 100.0 { "max_us".into() } else { format!("p{percentile}_us") }
}

fn json(args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) -> String {
    let mut text = format!(
        "{{\"workload\":{},\"connections\":{},\"depth\":{},\"rate\":{},\"burst\":{},\"size\":{},\"keys\":{},\"results\":[",
        quoted(&args.workload.name()),
        args.connections(),
        args.depth,
        args.rate.map_or("null".into(), |rate| rate.to_string()),
        args.burst,
        args.size,
        args.keys()
    );
    let mut first = true;
    for (target, outcomes) in targets.iter().zip(results) {
        for (round, outcome) in outcomes.iter().enumerate() {
            text.push_str(if std::mem::take(&mut first) { "\n" } else { ",\n" });
            let _ = write!(
                text,
                "{{\"server\":{},\"address\":{},\"round\":{round},\"answered\":{},\"seconds\":{},\"per_second\":{},\
                 \"cpu_us\":{},\"wrong\":{},\"generator_busy\":{}",
                quoted(&target.name),
                quoted(&target.address),
                outcome.answered,
                number(outcome.seconds),
                number(outcome.throughput()),
                outcome.server_cpu_us().map_or("null".into(), number),
                outcome.wrong,
                number(outcome.own_busy)
            );
            for percentile in PERCENTILES {
                let _ = write!(text, ",\"{}\":{}", column(percentile), number(outcome.percentile_us(percentile)));
            }
            let figures = outcome.figures.iter().map(|figure| format!("\"{}\":{}", figure.name, number(figure.value)));
            let errors = outcome.errors.iter().map(|(problem, count)| format!("{}:{count}", quoted(problem)));
            let _ = write!(
                text,
                ",\"figures\":{{{}}},\"errors\":{{{}}},\"each_second\":{:?}}}",
                figures.collect::<Vec<_>>().join(","),
                errors.collect::<Vec<_>>().join(","),
                outcome.per_second
            );
        }
    }
    text + "\n]}\n"
}

/// A field of CSV.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

fn csv(args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) -> String {
    let names: Vec<&str> =
        results.iter().flatten().next().map_or(Vec::new(), |outcome| outcome.figures.iter().map(|f| f.name).collect());
    let mut text = String::from("workload,connections,depth,rate,size,server,round,per_second,cpu_us,wrong,errors");
    for name in PERCENTILES.iter().map(|&at| column(at)).chain(names.iter().map(|name| name.to_string())) {
        text.push(',');
        text.push_str(&name);
    }
    text.push('\n');
    for (target, outcomes) in targets.iter().zip(results) {
        for (round, outcome) in outcomes.iter().enumerate() {
            let _ = write!(
                text,
                "{},{},{},{},{},{},{round},{},{},{},{}",
                args.workload.name(),
                args.connections(),
                args.depth,
                args.rate.map_or(String::new(), |rate| rate.to_string()),
                args.size,
                field(&target.name),
                number(outcome.throughput()),
                outcome.server_cpu_us().map_or(String::new(), number),
                outcome.wrong,
                outcome.errors.values().sum::<u64>()
            );
            for percentile in PERCENTILES {
                let _ = write!(text, ",{}", number(outcome.percentile_us(percentile)));
            }
            for name in &names {
                let _ = write!(text, ",{}", outcome.get(name).map_or(String::new(), number));
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_read_is_quoted() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!((number(f64::NAN), number(0.5), number(3.0)), ("null".into(), "0.5".into(), "3".into()));
    }
}
