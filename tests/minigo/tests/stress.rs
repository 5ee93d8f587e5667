//! Every program prints what real Go prints while the collector, the barriers and the moves do their worst.
#[macro_use]
mod runner;

use runner::{ALL_STRESS, Program, Size};

fn check(name: &str, options: &[&str]) {
    Program::new(name).check(options, Size::Stress);
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use super::*;

            #[test]
            fn collect_every_poll() {
                check(stringify!($name), &["--stress", "collect-every-poll"]);
            }

            #[test]
            fn barrier_every_frame() {
                check(stringify!($name), &["--stress", "barrier-every-frame"]);
            }

            #[test]
            fn move_every_poll() {
                check(stringify!($name), &["--stress", "move-every-poll"]);
            }

            #[test]
            fn poison() {
                check(stringify!($name), &["--stress", "poison"]);
            }

            #[test]
            fn verify() {
                check(stringify!($name), &["--stress", "verify"]);
            }

            #[test]
            fn move_and_poison() {
                check(stringify!($name), &["--stress", "move-every-poll,poison"]);
            }

            #[test]
            fn all_together() {
                check(stringify!($name), &["--stress", ALL_STRESS]);
            }

            #[test]
            fn all_together_on_four_threads() {
                check(stringify!($name), &["--threads", "4", "--stress", ALL_STRESS]);
            }

            #[test]
            fn all_together_without_barriers() {
                let list = "collect-every-poll,move-every-poll,poison,verify";
                check(stringify!($name), &["--barriers", "off", "--stress", list]);
            }
        })*
    };
}

for_each_program!(tests);
