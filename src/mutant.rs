//! Mutants: deliberate weakenings of the protocols, each of which a model test must detect.
//!
//! A build with `--cfg cortado_mutants` contains all of them, and the environment variable
//! `CORTADO_MUTANT` names the active one. Other builds contain none. See `loom_tests/README.md`.

/// Evaluates to whether the mutant of this name is active.
#[cfg(cortado_mutants)]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::is_on($name)
    };
}

/// Evaluates to `false`: this build contains no mutants.
#[cfg(not(cortado_mutants))]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// Evaluates to the correct ordering of an operation, or to the one that an active mutant puts in
/// its place.
macro_rules! ordering {
    ($right:ident $(, mutant($name:literal) => $wrong:ident)+) => {
        $(if mutant!($name) {
            $crate::sync::atomic::Ordering::$wrong
        } else)+ {
            $crate::sync::atomic::Ordering::$right
        }
    };
}

/// Returns whether the mutant `name` is active. Constant for the lifetime of the process.
#[cfg(cortado_mutants)]
pub fn is_on(name: &str) -> bool {
    use std::sync::OnceLock; // shim: read once, and no part of a model

    static MUTANT: OnceLock<String> = OnceLock::new();
    MUTANT.get_or_init(|| std::env::var("CORTADO_MUTANT").unwrap_or_default()) == name
}
