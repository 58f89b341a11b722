//! Compiles the library's mutants in, one of which `CORTADO_MUTANT=NAME` activates at run time, and
//! turns `CORTADO_SMALL_VERSION=1` into `--cfg cortado_small_version`. Both apply to this package
//! only: as global compiler flags they would rebuild every dependency.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CORTADO_SMALL_VERSION");
    println!("cargo::rustc-cfg=cortado_mutants");
    if std::env::var("CORTADO_SMALL_VERSION").is_ok_and(|value| value == "1") {
        println!("cargo::rustc-cfg=cortado_small_version");
    }
}
