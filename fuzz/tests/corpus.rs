//! Replays the corpus without a fuzzer.

use std::path::Path;

/// Runs `target` on each file of its corpus, and on truncated versions of it.
fn replay(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files = 0;
    for file in std::fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        // Printed if the test fails.
        println!("{}", path.display());
        let data = std::fs::read(&path).unwrap();
        target(&data);
        for end in (0..data.len()).step_by(data.len() / 8 + 1) {
            target(&data[..end]);
        }
        files += 1;
    }
    assert!(files >= 10, "only {files} files in {}", directory.display());
}

#[test]
fn corpus_of_the_api_replays() {
    replay("api", cortado_fuzz::api::run);
}

#[test]
fn corpus_of_import_replays() {
    replay("import", cortado_fuzz::import::run);
}

#[test]
fn corpus_of_the_traces_replays() {
    replay("traces", cortado_fuzz::traces::run);
}
