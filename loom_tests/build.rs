//! Builds the library's mutants in, of which `CORTADO_MUTANT=NAME` switches one on when the tests run; and turns
//! `CORTADO_SMALL_VERSION=1` into `--cfg cortado_small_version`. Both for this package alone: as compiler flags for
//! everything they would rebuild every dependency.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CORTADO_SMALL_VERSION");
    println!("cargo::rustc-cfg=cortado_mutants");
    if std::env::var("CORTADO_SMALL_VERSION").is_ok_and(|value| value == "1") {
        println!("cargo::rustc-cfg=cortado_small_version");
    }
}
