//! Turns `CORTADO_MUTANT=name` into `--cfg cortado_mutant="name"`, and `CORTADO_SMALL_VERSION=1` into
//! `--cfg cortado_small_version`, for this package alone: as compiler flags for everything they would rebuild every
//! dependency for every mutant.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CORTADO_MUTANT");
    println!("cargo::rerun-if-env-changed=CORTADO_SMALL_VERSION");
    if let Ok(mutant) = std::env::var("CORTADO_MUTANT")
        && !mutant.is_empty()
    {
        println!("cargo::rustc-cfg=cortado_mutant=\"{mutant}\"");
    }
    if std::env::var("CORTADO_SMALL_VERSION").is_ok_and(|value| value == "1") {
        println!("cargo::rustc-cfg=cortado_small_version");
    }
}
