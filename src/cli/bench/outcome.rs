//! What one measurement of one server found.

use super::process;
use crate::clock::Now;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// A figure that only some workloads have. The name says the unit: `gap_ms`, `bytes_per_session`.
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
}

/// One measurement of one server.
pub struct Outcome {
    pub answered: u64,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
    /// Replies that were not what they had to be.
    pub wrong: u64,
    pub first_wrong: Option<String>,
    /// What went wrong without being a wrong answer (a lost connection when a server dies, ...), and how often.
    pub errors: BTreeMap<String, u64>,
    /// Replies in each second that was measured.
    pub per_second: Vec<u64>,
    pub server_cpu_nanos: Option<u64>,
    /// The largest part of the time for which a thread of the generator was busy, or was waiting for a core.
    pub own_busy: f64,
    /// Open loop: how long after they were due requests were written, by the generator's own fault. Nanoseconds.
    pub lateness: Histogram<u64>,
    pub figures: Vec<Figure>,
}

/// The middle one, or what is between the two in the middle; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// From a nanosecond to ten minutes, three digits. A higher beginning would make coarser steps: from a microsecond on they
/// would be of 512 ns, up to a millisecond. It takes a quarter of a megabyte.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are in order")
}

pub const PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

impl Outcome {
    pub fn new() -> Outcome {
        Outcome {
            answered: 0,
            seconds: 0.0,
            latencies: histogram(),
            wrong: 0,
            first_wrong: None,
            errors: BTreeMap::new(),
            per_second: Vec::new(),
            server_cpu_nanos: None,
            own_busy: 0.0,
            lateness: histogram(),
            figures: Vec::new(),
        }
    }

    /// One reply, `from` when it was asked for, `begin` being when the measurement began.
    pub fn answer(&mut self, from: Now, now: Now, begin: Now) {
        self.answered += 1;
        let nanos = now.since(from).as_nanos() as u64;
        self.latencies.saturating_record(nanos.max(1));
        let second = now.since(begin).as_secs() as usize;
        if self.per_second.len() <= second {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += 1;
    }

    /// Open loop: a request that was due at `due` has been written at `now`.
    pub fn late(&mut self, due: Now, now: Now) {
        self.lateness.saturating_record((now.since(due).as_nanos() as u64).max(1));
    }

    pub fn wrong(&mut self, problem: String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(problem);
    }

    pub fn error(&mut self, problem: impl Into<String>) {
        *self.errors.entry(problem.into()).or_insert(0) += 1;
    }

    pub fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.push(Figure { name, value });
    }

    /// A figure that may not be known.
    pub fn known(&mut self, name: &'static str, value: Option<f64>) {
        self.figures.extend(value.map(|value| Figure { name, value }));
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// Takes in what another thread has counted of the same measurement.
    pub fn merge(&mut self, other: Outcome) {
        self.answered += other.answered;
        self.wrong += other.wrong;
        self.first_wrong = self.first_wrong.take().or(other.first_wrong);
        for (problem, count) in other.errors {
            *self.errors.entry(problem).or_insert(0) += count;
        }
        self.latencies.add(&other.latencies).expect("all histograms have the same bounds");
        self.lateness.add(&other.lateness).expect("all histograms have the same bounds");
        self.per_second.resize(self.per_second.len().max(other.per_second.len()), 0);
        for (sum, count) in self.per_second.iter_mut().zip(&other.per_second) {
            *sum += count;
        }
        self.seconds = self.seconds.max(other.seconds);
        self.own_busy = self.own_busy.max(other.own_busy);
    }

    pub fn throughput(&self) -> f64 {
        if self.seconds > 0.0 { self.answered as f64 / self.seconds } else { 0.0 }
    }

    /// Microseconds of the server's CPU for each answered request.
    pub fn server_cpu_us(&self) -> Option<f64> {
        self.server_cpu_nanos.map(|nanos| nanos as f64 / 1_000.0 / self.answered.max(1) as f64)
    }

    pub fn percentile_us(&self, percentile: f64) -> f64 {
        self.latencies.value_at_percentile(percentile) as f64 / 1_000.0
    }

    /// Why the generator may be what was measured, if it may.
    pub fn own_bottleneck(&self) -> Option<String> {
        let (busy, late) = (self.own_busy * 100.0, self.lateness.value_at_percentile(99.0) as f64 / 1_000.0);
        if self.own_busy > 0.9 {
            return Some(format!(
                "the generator had no time left ({busy:.0} % busy or waiting for a core): it may be what \
                was measured; throughput and latency are lower bounds (--threads, another machine)"
            ));
        }
        // A tenth of the median latency, and enough to be noticed.
        if !self.lateness.is_empty() && late > 200.0 && late > self.percentile_us(50.0) / 10.0 {
            return Some(format!(
                "the generator wrote 1 % of the requests more than {late:.0} us late: latencies hold \
                its own delay"
            ));
        }
        None
    }
}

/// Measures how busy the calling thread is.
pub struct Busy {
    from: Now,
    nanos: u64,
}

impl Busy {
    pub fn start(now: Now) -> Busy {
        Busy { from: now, nanos: process::own_busy_nanos() }
    }

    /// The part of the time since `start`.
    pub fn part(&self, now: Now) -> f64 {
        let nanos = process::own_busy_nanos().saturating_sub(self.nanos);
        nanos as f64 / (now.since(self.from).as_nanos() as f64).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn latencies_have_three_digits_also_where_they_are_short() {
        for nanos in [1_234, 20_100, 300_300_000] {
            let mut outcome = Outcome::new();
            outcome.answer(Now::START, Now::START.plus(Duration::from_nanos(nanos)), Now::START);
            let (found, due) = (outcome.percentile_us(50.0), nanos as f64 / 1e3);
            assert!((found - due).abs() <= due / 1e3, "{found} us of {due}");
        }
        assert!(histogram().distinct_values() * size_of::<u64>() < 256 << 10);
    }

    #[test]
    fn threads_add_up() {
        let (mut one, mut two) = (Outcome::new(), Outcome::new());
        let at = |ms| Now::START.plus_ms(ms);
        one.answer(at(0), at(10), at(0));
        two.answer(at(1_000), at(1_500), at(0));
        two.wrong("first".into());
        two.error("lost");
        one.seconds = 2.0;
        one.merge(two);
        assert_eq!((one.answered, one.wrong, one.per_second.as_slice()), (2, 1, &[1, 1][..]));
        assert_eq!((one.throughput(), one.errors.get("lost")), (1.0, Some(&1)));
        assert_eq!(one.first_wrong.as_deref(), Some("first"));
        assert!((499_000.0..502_000.0).contains(&one.percentile_us(100.0)));
    }
}
