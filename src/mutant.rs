//! Mutants: places at which a protocol can be weakened, to show that its model tests notice.
//!
//! A build with `--cfg cortado_mutants` has all of them, and the environment variable `CORTADO_MUTANT` names the one that
//! is on. Other builds have none. See `loom_tests/README.md`.

/// Whether the mutant of this name is on.
#[cfg(cortado_mutants)]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::is_on($name)
    };
}

/// Whether the mutant of this name is on: there is none.
#[cfg(not(cortado_mutants))]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// The right ordering of an operation, and those that mutants put in its place.
macro_rules! ordering {
    ($right:ident $(, mutant($name:literal) => $wrong:ident)+) => {
        $(if mutant!($name) {
            $crate::sync::atomic::Ordering::$wrong
        } else)+ {
            $crate::sync::atomic::Ordering::$right
        }
    };
}

/// Returns whether a mutant is on. The same in all of a process.
#[cfg(cortado_mutants)]
pub fn is_on(name: &str) -> bool {
    use std::sync::OnceLock; // shim: read once, and no part of a model

    static MUTANT: OnceLock<String> = OnceLock::new();
    MUTANT.get_or_init(|| std::env::var("CORTADO_MUTANT").unwrap_or_default()) == name
}
