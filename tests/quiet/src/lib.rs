//! The machine that a benchmark runs on: its name, how busy it is, and its own noise.
//!
//! A figure without these says little. A benchmark makes a [`Machine`] first and drops it last:
//! what stands above its figures and below them is the floor under which they mean nothing.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// The noise is looked at for so long.
const LOOK: Duration = Duration::from_millis(300);

/// From this load on the machine is not quiet. A benchmark that has just been built leaves some.
const LOADED: f64 = 1.0;

/// A machine is not quiet if it has lost more than this part of its time to others.
const STOLEN: f64 = 0.01;

/// The machine, as it was when the benchmark began.
#[derive(Debug)]
pub struct Machine {
    ticks: Ticks,
    load: f64,
}

impl Machine {
    /// Prints the machine's name, its load and the gaps that a loop sees which only reads the
    /// clock; warns where it is not quiet.
    pub fn look() -> Machine {
        let machine = Machine { ticks: Ticks::now(), load: load() };
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        println!("machine: {}, {processors} processors, load {:.2}", name(), machine.load);
        println!("noise: {}", Gaps::of_a_loop());
        if machine.load >= LOADED {
            println!("warning: the machine is not quiet: load {:.2}", machine.load);
        }
        machine
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let stolen = Ticks::now().stolen_since(&self.ticks);
        println!("since then: {:.2} % of the time stolen, load {:.2}", stolen * 1e2, load());
        if stolen >= STOLEN {
            println!("warning: the machine is not quiet: others have taken its time");
        }
    }
}

/// The processor's name, as the system has it.
fn name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    // arm64 has numbers instead of a name.
    of("model name")
        .or_else(|| {
            Some(format!("implementer {} part {}", of("CPU implementer")?, of("CPU part")?))
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The load of the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// The time of all processors, in ticks of the system.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    fn now() -> Ticks {
        Ticks::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. What
    /// follows is part of the first two.
    fn parse(text: &str) -> Ticks {
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).map_while(|word| word.parse().ok()).collect();
        Ticks { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or(0) }
    }

    /// The part of the time since then that was stolen.
    fn stolen_since(&self, before: &Ticks) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

/// What a loop sees that only reads the clock: times between two readings that are longer than the
/// system's shortest work.
#[derive(Debug, Default)]
struct Gaps {
    /// Those of more than a microsecond, sorted.
    long: Vec<Duration>,
    /// How long the loop ran.
    whole: Duration,
}

impl Gaps {
    fn of_a_loop() -> Gaps {
        let begun = Instant::now();
        let (mut last, mut long) = (begun, Vec::new());
        loop {
            let now = Instant::now();
            if now - last > Duration::from_micros(1) {
                long.push(now - last);
            }
            last = now;
            if now - begun > LOOK {
                break;
            }
        }
        long.sort_unstable();
        Gaps { long, whole: last - begun }
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |gap: Option<&Duration>| gap.map_or(0.0, |gap| gap.as_secs_f64() * 1e6);
        let (median, longest) = (self.long.get(self.long.len() / 2), self.long.last());
        write!(
            f,
            "a loop that reads the clock is interrupted {:.0} times a second, for {:.1} us in the \
             median and {:.1} us at most",
            self.long.len() as f64 / self.whole.as_secs_f64().max(1e-9),
            us(median),
            us(longest),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_part_of_all_that_has_passed() {
        let before = Ticks::parse("cpu  100 0 50 800 10 0 5 20 7 0\ncpu0 1 2 3\n");
        let after = Ticks::parse("cpu  150 0 60 820 10 0 5 40 9 0\n");
        assert_eq!((before.all, before.stolen), (985, 20));
        assert!((after.stolen_since(&before) - 0.2).abs() < 1e-9);
        assert_eq!(before.stolen_since(&before), 0.0, "no time has passed");
    }

    #[test]
    fn a_system_that_does_not_tell_has_no_stolen_time() {
        assert_eq!(Ticks::parse("").stolen_since(&Ticks::default()), 0.0);
    }

    #[test]
    fn gaps_are_shown_with_their_median_and_the_longest() {
        let long = [2, 3, 900].map(Duration::from_micros).to_vec();
        let shown = Gaps { long, whole: Duration::from_secs(1) }.to_string();
        assert!(
            shown.contains("3 times a second, for 3.0 us in the median and 900.0 us"),
            "{shown}"
        );
        let none = Gaps::default().to_string();
        assert!(none.contains("0 times a second"), "{none}");
    }
}
