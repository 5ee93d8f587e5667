//! Every program prints what real Go prints, on one thread's worth of options and on four.
#[macro_use]
mod runner;

use runner::{Program, Size};

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use super::*;

            #[test]
            fn by_default() {
                Program::new(stringify!($name)).check(&[], Size::Full);
            }

            #[test]
            fn on_four_threads() {
                Program::new(stringify!($name)).check(&["--threads", "4"], Size::Full);
            }

            #[test]
            fn with_three_mark_workers() {
                let options = ["--mark-workers", "3", "--gc-percent", "20"];
                Program::new(stringify!($name)).check(&options, Size::Full);
            }

            #[test]
            fn small() {
                Program::new(stringify!($name)).check(&[], Size::Stress);
            }
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

for_each_program!(tests);

#[test]
fn every_program_in_the_directory_is_tested() {
    assert_eq!(runner::names_in(&runner::programs()), NAMES);
}
