//! What a user of the command line sees, above all when something is wrong.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A directory for one test's files, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("cortado-replay-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cortado-replay")).args(arguments).output().unwrap()
}

fn fails(arguments: &[&str]) -> String {
    let output = run(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty());
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn prints(arguments: &[&str]) -> String {
    let output = run(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    // Bars are for terminals.
    assert_eq!(message, "");
    String::from_utf8(output.stdout).unwrap()
}

const LOOP: &[u8] = b"1\n2\n3\n4\n1\n2\n3\n4\n1\n2\n3\n4\n";

#[test]
fn missing_file_is_named() {
    let message = fails(&["hit-ratio", "--trace", "no/such.lirs", "--capacity", "2"]);
    assert!(message.contains("no/such.lirs"), "{message}");
}

#[test]
fn directory_is_no_trace() {
    let scratch = Scratch::new("directory");
    let directory = scratch.0.join("sub.lirs");
    fs::create_dir(&directory).unwrap();
    let path = directory.to_str().unwrap();
    assert!(fails(&["hit-ratio", "--trace", path, "--capacity", "2"]).contains("sub.lirs"));
}

#[test]
fn unknown_format_is_named() {
    let scratch = Scratch::new("format");
    for name in ["trace.csv", "trace", "lirs", "trace.gz"] {
        let path = scratch.file(name, LOOP);
        let message = fails(&["hit-ratio", "--trace", &path, "--capacity", "2"]);
        assert!(message.contains(name) && message.contains(".lirs"), "{message}");
    }
}

#[test]
fn bad_line_is_named_with_its_number() {
    let scratch = Scratch::new("line");
    for (name, content) in [
        ("bad.lirs", &b"1\n\nx7\n"[..]),
        ("bad.lis", b"1 1 0 0\n2 2 0 0\n3\n"),
        ("bad.address", b"s 0x1 1\ns 0x2 1\ns 0xzz 1\n"),
        ("bad.txt", b"1 1 1\n2 2 2\n3 3 \xff\n"),
        ("negative.lirs", b"1\n*\n-7\n"),
    ] {
        let path = scratch.file(name, content);
        let message = fails(&["hit-ratio", "--trace", &path, "--capacity", "2"]);
        assert!(message.contains(name) && message.contains("line 3"), "{message}");
    }
}

#[test]
fn half_a_word_is_named() {
    let scratch = Scratch::new("word");
    let path = scratch.file("bad.u32be", &[0, 0, 0, 1, 0, 0]);
    let message = fails(&["hit-ratio", "--trace", &path, "--capacity", "2"]);
    assert!(message.contains("bad.u32be") && message.contains("word 2"), "{message}");
}

#[test]
fn damaged_compression_is_an_error() {
    let scratch = Scratch::new("damaged");
    for name in ["bad.lirs.gz", "bad.lirs.zst", "bad.lis.xz", "bad.u32be.xz"] {
        let path = scratch.file(name, b"this was never compressed");
        let message = fails(&["hit-ratio", "--trace", &path, "--capacity", "2"]);
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn empty_trace_is_an_error() {
    let scratch = Scratch::new("empty");
    for (name, content) in [("empty.lirs", &b"*\n\n"[..]), ("empty.u32be", b"")] {
        let path = scratch.file(name, content);
        assert!(fails(&["hit-ratio", "--trace", &path, "--capacity", "2"]).contains(name));
    }
}

#[test]
fn unknown_cache_is_named_with_those_there_are() {
    let scratch = Scratch::new("unknown");
    let path = scratch.file("loop.lirs", LOOP);
    let message =
        fails(&["hit-ratio", "--trace", &path, "--capacity", "2", "--cache", "moka,memcached"]);
    assert!(message.contains("memcached") && message.contains("quick_cache"), "{message}");
    assert!(fails(&["throughput", "--cache", "memcached"]).contains("memcached"));
    assert!(fails(&["--cache", "memcached"]).contains("memcached"));
}

#[test]
fn cache_in_the_wrong_place_is_an_error() {
    assert!(fails(&["throughput", "--cache", "opt"]).contains("hit-ratio"));
    assert!(fails(&["throughput", "--cache", "hashbrown"]).contains("hits"));
    assert!(fails(&["memory", "--cache", "opt", "--entries", "10"]).contains("hit-ratio"));
    let quick = ["--workload", "hits", "--seconds", "0.01", "--rounds", "1", "--threads", "1"];
    let arguments = [&["throughput", "--cache", "moka", "--batch", "4"], &quick[..]].concat();
    assert!(fails(&arguments).contains("many keys"));
    assert!(fails(&["throughput", "--batch", "16"]).contains("--workload hits"));
}

#[test]
fn numbers_out_of_range_are_errors() {
    let scratch = Scratch::new("numbers");
    let path = scratch.file("loop.lirs", LOOP);
    for capacity in ["0", "5,0", "-1", "many", "99999999999999999999999"] {
        let message = fails(&["hit-ratio", "--trace", &path, "--capacity", capacity]);
        assert!(message.contains("--capacity"), "{message}");
    }
    for arguments in [
        ["throughput", "--capacity", "0"],
        ["throughput", "--threads", "0"],
        ["throughput", "--keys", "0"],
        ["throughput", "--zipf", "NaN"],
        ["throughput", "--zipf", "-1"],
        ["throughput", "--reads", "101"],
        ["throughput", "--seconds", "inf"],
        ["throughput", "--rounds", "0"],
        ["latency", "--value-bytes", "0"],
        ["memory", "--entries", "0"],
        ["budget", "--writers", "0"],
        ["churn", "--inserts", "0"],
    ] {
        assert!(fails(&arguments).contains(arguments[1]));
    }
}

#[test]
fn hit_ratios_come_as_csv() {
    let scratch = Scratch::new("csv");
    let path = scratch.file("loop.lirs", LOOP);
    let text = prints(&[
        "hit-ratio",
        "--trace",
        &path,
        "--capacity",
        "2,4",
        "--cache",
        "opt,lru",
        "--format",
        "csv",
    ]);
    assert_eq!(
        text,
        "trace,capacity,cache,requests,hits,hit_ratio\n\
         loop,2,opt,12,4,0.333333\n\
         loop,2,lru,12,0,0.000000\n\
         loop,4,opt,12,8,0.666667\n\
         loop,4,lru,12,8,0.666667\n"
    );
}

#[test]
fn several_traces_are_taken_in_order() {
    let scratch = Scratch::new("several");
    let first = scratch.file("a.lis", b"7 2 0 0\n7 2 0 0\n");
    let second = scratch.file("b.u32be", &[0, 0, 0, 9, 0, 0, 0, 9]);
    let text = prints(&[
        "hit-ratio",
        "--trace",
        &first,
        &second,
        "--capacity",
        "8",
        "--cache",
        "lru",
        "--format",
        "json",
    ]);
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows[0]["trace"], "a");
    assert_eq!(rows[0]["hits"], 2);
    assert_eq!(rows[1]["trace"], "b");
    assert_eq!(rows[1]["hit_ratio"], 0.5);
}

#[test]
fn compressed_traces_read_like_plain_ones() {
    use std::io::Write as _;

    let scratch = Scratch::new("compressed");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(LOOP).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(LOOP).unwrap();
    for (name, content) in [
        ("loop.lirs.gz", gzip.finish().unwrap()),
        ("loop.lirs.xz", xz.finish().unwrap()),
        ("loop.lirs.zst", zstd::encode_all(LOOP, 1).unwrap()),
        ("LOOP.LIRS", LOOP.to_vec()),
    ] {
        let path = scratch.file(name, &content);
        let text = prints(&[
            "hit-ratio",
            "--trace",
            &path,
            "--capacity",
            "4",
            "--cache",
            "lru",
            "--format",
            "csv",
        ]);
        assert!(text.to_lowercase().ends_with("loop,4,lru,12,8,0.666667\n"), "{text}");
    }
}

#[test]
fn every_cache_survives_a_small_replay() {
    let scratch = Scratch::new("every");
    let path = scratch.file("loop.lirs", &LOOP.repeat(50));
    for capacity in ["1", "3", "1000"] {
        let text = prints(&["hit-ratio", "--trace", &path, "--capacity", capacity]);
        for name in ["opt", "cortado", "moka", "stretto", "tinyufo", "lru"] {
            assert!(text.contains(name), "{text}");
        }
    }
}

#[test]
fn every_workload_runs() {
    for workload in ["mixed", "read-through", "hits", "churn", "hot"] {
        let quick = ["--rounds", "1", "--seconds", "0.01", "--threads", "1,2"];
        let cache = ["--keys", "1000", "--cache", "cortado,lru,quick_cache"];
        for command in ["throughput", "latency"] {
            let arguments = [&[command, "--workload", workload], &quick[..], &cache[..]].concat();
            assert!(prints(&arguments).contains("quick_cache"));
        }
    }
    let batch = ["throughput", "--workload", "hits", "--batch", "16", "--cache", "cortado"];
    prints(&[&batch[..], &["--rounds", "1", "--seconds", "0.01"]].concat());
    let floor = ["throughput", "--workload", "hits", "--cache", "hashbrown", "--format", "csv"];
    let text = prints(&[&floor[..], &["--rounds", "1", "--seconds", "0.01"]].concat());
    assert!(text.lines().nth(1).unwrap().ends_with(",1.0"), "{text}");
}

#[test]
fn memory_budget_and_churn_run() {
    let text = prints(&["memory", "--entries", "1000", "--cache", "lru,tinyufo,cortado"]);
    assert!(text.contains("tinyufo"));
    let text = prints(&[
        "budget",
        "--capacity",
        "100",
        "--writers",
        "2",
        "--inserts",
        "10000",
        "--cache",
        "lru",
        "--format",
        "csv",
    ]);
    assert!(text.lines().nth(1).unwrap().starts_with("lru,100,2,10000,10"), "{text}");
    let text = prints(&[
        "churn",
        "--inserts",
        "20000",
        "--capacity",
        "100",
        "--cache",
        "lru,cortado",
        "--threads",
        "1,2",
    ]);
    assert!(text.contains("worst pause"));
}
