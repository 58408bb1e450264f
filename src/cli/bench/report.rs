//! What a measurement found, for people and for programs.

use super::{BenchArgs, Target};
use crate::fatal::Fatal;
use hdrhistogram::Histogram;
use std::fmt::Write;
use std::path::Path;

/// One measurement of one server.
pub struct Outcome {
    pub answered: u64,
    pub seconds: f64,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
    pub wrong: u64,
    pub first_wrong: Option<String>,
    pub per_second: Vec<u64>,
    pub server_cpu_nanos: Option<u64>,
    pub own_cpu_nanos: u64,
    pub threads: u32,
}

/// From a microsecond to a minute, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are in order")
}

impl Outcome {
    pub fn new() -> Outcome {
        Outcome {
            answered: 0,
            seconds: 0.0,
            latencies: histogram(),
            wrong: 0,
            first_wrong: None,
            per_second: Vec::new(),
            server_cpu_nanos: None,
            own_cpu_nanos: 0,
            threads: 1,
        }
    }

    pub fn add_seconds(&mut self, counts: &[u64]) {
        self.per_second.resize(self.per_second.len().max(counts.len()), 0);
        for (sum, count) in self.per_second.iter_mut().zip(counts) {
            *sum += count;
        }
    }

    pub fn throughput(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// Microseconds of the server's CPU for each answered request.
    pub fn server_cpu_us(&self) -> Option<f64> {
        self.server_cpu_nanos.map(|nanos| nanos as f64 / 1_000.0 / self.answered.max(1) as f64)
    }

    fn percentile_us(&self, percentile: f64) -> f64 {
        self.latencies.value_at_percentile(percentile) as f64 / 1_000.0
    }

    /// Whether the generator's own threads had nothing left to give.
    fn is_own_bottleneck(&self) -> bool {
        self.own_cpu_nanos as f64 > 0.9 * self.seconds * 1e9 * f64::from(self.threads)
    }
}

const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 100.0];

/// One line as soon as a measurement is done.
pub fn line(name: &str, round: u32, outcome: &Outcome) {
    let cpu = outcome.server_cpu_us().map_or(String::new(), |us| format!(", {us:.2} us CPU each"));
    println!(
        "{name:>16} round {round}: {:.0} a second{cpu}, p50 {:.0} us, p99 {:.0} us",
        outcome.throughput(),
        outcome.percentile_us(50.0),
        outcome.percentile_us(99.0)
    );
    if let Some(wrong) = &outcome.first_wrong {
        println!("{name:>16} {} WRONG answers, the first: {wrong}", outcome.wrong);
    }
    if outcome.is_own_bottleneck() {
        println!("{name:>16} the generator itself was busy all the time: it may be what was measured (--threads)");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

struct Row {
    throughput: f64,
    cpu_us: Option<f64>,
    percentiles: Vec<f64>,
}

fn row(outcomes: &[Outcome]) -> Row {
    let cpu: Option<Vec<f64>> = outcomes.iter().map(Outcome::server_cpu_us).collect();
    Row {
        throughput: median(outcomes.iter().map(Outcome::throughput).collect()),
        cpu_us: cpu.map(median),
        percentiles: PERCENTILES
            .iter()
            .map(|&percentile| median(outcomes.iter().map(|outcome| outcome.percentile_us(percentile)).collect()))
            .collect(),
    }
}

/// Medians over the rounds, and each server's ratio to the first.
pub fn table(args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) {
    println!(
        "\n{:?}, {} connections, {} in flight each, {} bytes, {} rounds of {} s (medians; latency in us)",
        args.workload,
        args.connections,
        args.depth,
        args.size,
        results.first().map_or(0, Vec::len),
        args.seconds
    );
    println!(
        "{:>16} {:>12} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "a second", "CPU us/op", "p50", "p90", "p99", "p99.9", "max"
    );
    let rows: Vec<Row> = results.iter().map(|outcomes| row(outcomes)).collect();
    for (target, row) in targets.iter().zip(&rows) {
        let cpu = row.cpu_us.map_or("-".into(), |us| format!("{us:.2}"));
        print!("{:>16} {:>12.0} {cpu:>10}", target.name, row.throughput);
        for value in &row.percentiles {
            print!(" {value:>9.0}");
        }
        println!();
    }
    let Some(first) = rows.first() else { return };
    for (target, row) in targets.iter().zip(&rows).skip(1) {
        let cpu = match (first.cpu_us, row.cpu_us) {
            (Some(ours), Some(theirs)) => format!(", CPU per operation x {:.3}", ours / theirs),
            _ => String::new(),
        };
        println!(
            "{} to {}: throughput x {:.2}{cpu}, p99 x {:.3}",
            targets[0].name,
            target.name,
            first.throughput / row.throughput,
            first.percentiles[2] / row.percentiles[2]
        );
    }
}

/// Writes the files that were asked for.
pub fn files(args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) -> Result<(), Fatal> {
    if let Some(path) = &args.json {
        save(path, &json(args, targets, results))?;
    }
    if let Some(path) = &args.csv {
        save(path, &csv(args, targets, results))?;
    }
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<(), Fatal> {
    std::fs::write(path, text).map_err(|source| Fatal::Io { file: path.to_owned(), source })
}

fn json(args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) -> String {
    let mut text = format!(
        "{{\"workload\":\"{:?}\",\"connections\":{},\"depth\":{},\"size\":{},\"keys\":{},\"results\":[",
        args.workload, args.connections, args.depth, args.size, args.keys
    );
    let mut first = true;
    for (target, outcomes) in targets.iter().zip(results) {
        for (round, outcome) in outcomes.iter().enumerate() {
            let comma = if std::mem::take(&mut first) { "" } else { "," };
            let cpu = outcome.server_cpu_us().map_or("null".into(), |us| format!("{us:.4}"));
            let _ = write!(
                text,
                "{comma}{{\"server\":{:?},\"round\":{round},\"per_second\":{:.1},\"cpu_us\":{cpu},\"wrong\":{}",
                target.name,
                outcome.throughput(),
                outcome.wrong
            );
            for percentile in PERCENTILES {
                let _ = write!(text, ",\"p{percentile}_us\":{:.1}", outcome.percentile_us(percentile));
            }
            let _ = write!(text, ",\"each_second\":{:?}}}", outcome.per_second);
        }
    }
    text + "]}\n"
}

fn csv(args: &BenchArgs, targets: &[Target], results: &[Vec<Outcome>]) -> String {
    let mut text = String::from(
        "workload,connections,depth,size,server,round,per_second,cpu_us,p50_us,p90_us,p99_us,p99.9_us,max_us,wrong\n",
    );
    for (target, outcomes) in targets.iter().zip(results) {
        for (round, outcome) in outcomes.iter().enumerate() {
            let cpu = outcome.server_cpu_us().map_or(String::new(), |us| format!("{us:.4}"));
            let _ = write!(
                text,
                "{:?},{},{},{},{},{round},{:.1},{cpu}",
                args.workload,
                args.connections,
                args.depth,
                args.size,
                target.name,
                outcome.throughput()
            );
            for percentile in PERCENTILES {
                let _ = write!(text, ",{:.1}", outcome.percentile_us(percentile));
            }
            let _ = writeln!(text, ",{}", outcome.wrong);
        }
    }
    text
}
