//! Turns `CORTADO_MUTANT=name` into `--cfg cortado_mutant="name"`, for this package alone: as a
//! compiler flag for everything it would rebuild every dependency for every mutant.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CORTADO_MUTANT");
    if let Ok(mutant) = std::env::var("CORTADO_MUTANT")
        && !mutant.is_empty()
    {
        println!("cargo::rustc-cfg=cortado_mutant=\"{mutant}\"");
    }
}
