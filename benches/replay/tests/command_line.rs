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

/// Parses an SVG, or the report's HTML, which is well-formed XML as well.
fn parse(text: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(text, options).unwrap()
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
    prints_with_progress(arguments).0
}

/// Returns what goes to standard output and to standard error.
fn prints_with_progress(arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{message}");
    // Without a terminal there is a line for each step, and nothing that moves or has colours.
    for line in message.lines() {
        let is_step = line.split_once(" %, ").is_some_and(|(percent, rest)| {
            percent.trim().parse::<u32>().is_ok_and(|percent| percent <= 100) && rest.contains(": ")
        });
        let is_other = ["warning: ", "wrote ", "this takes about "];
        assert!(is_step || is_other.iter().any(|start| line.starts_with(start)), "{line}");
    }
    assert!(!message.contains('\u{1b}') && !message.contains('\r'), "{message:?}");
    (String::from_utf8(output.stdout).unwrap(), message)
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
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(LOOP).unwrap();
    for (name, content) in [
        ("loop.lirs.gz", gzip.finish().unwrap()),
        ("loop.lirs.xz", xz.finish().unwrap()),
        (
            "loop.lirs.zst",
            ruzstd::encoding::compress_to_vec(LOOP, ruzstd::encoding::CompressionLevel::Fastest),
        ),
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
fn wrong_pattern_is_named_with_those_there_are() {
    for wrong in ["ziph:1", "zipf:x", "zipf:11", "loop:0", "churn:3", "zipf,"] {
        let message = fails(&["hit-ratio", "--synthetic", wrong, "--capacity", "2"]);
        assert!(message.contains("--synthetic"), "{message}");
    }
    let message = fails(&["hit-ratio", "--synthetic", "ziph", "--capacity", "2"]);
    assert!(message.contains("zipf, churn, scan, loop, latest, shift, twice"), "{message}");
    let message =
        fails(&["hit-ratio", "--synthetic", "scan", "--accesses", "0", "--capacity", "2"]);
    assert!(message.contains("--accesses"), "{message}");
}

#[test]
fn some_trace_must_be_named() {
    assert!(fails(&["hit-ratio", "--capacity", "2"]).contains("--trace"));
    assert!(fails(&["compare"]).contains("--at"));
}

#[test]
fn made_up_traces_follow_from_the_seed() {
    let print = |seed| {
        prints(&[
            "hit-ratio",
            "--synthetic",
            "zipf:1.1,churn,scan,latest,shift",
            "--accesses",
            "20_000",
            "--capacity",
            "100",
            "--cache",
            "lru,opt",
            "--format",
            "csv",
            "--seed",
            seed,
        ])
    };
    let text = print("5");
    assert!(text.contains("\nzipf:1.1,100,lru,20000,") && text.contains("\nshift,100,opt,20000,"));
    assert_eq!(text, print("5"));
    assert_ne!(text, print("6"));
}

#[test]
fn made_up_traces_stand_beside_files() {
    let scratch = Scratch::new("beside");
    let path = scratch.file("loop.lirs", LOOP);
    let arguments = ["hit-ratio", "--trace", &path, "--synthetic", "loop:4", "--accesses", "12"];
    let more = ["--capacity", "2", "--cache", "opt", "--format", "csv"];
    let text = prints(&[&arguments[..], &more[..]].concat());
    assert!(text.ends_with("\nloop,2,opt,12,4,0.333333\nloop:4,2,opt,12,4,0.333333\n"), "{text}");
}

const SIZED: &[u8] = b"1 1 10\n2 2 30\n3 1 10\n4 1 10\n5 3 50\n6 2 30\n";

#[test]
fn sizes_add_byte_hit_ratios() {
    let scratch = Scratch::new("sizes");
    let path = scratch.file("sized.txt", SIZED);
    let arguments = ["hit-ratio", "--trace", &path, "--sizes", "--capacity", "100_000"];
    let caches = ["--cache", "cortado,cortado-bytes,moka,foyer"];
    let text = prints(&[&arguments[..], &caches[..], &["--format", "csv"]].concat());
    assert_eq!(
        text,
        "trace,capacity,cache,requests,hits,hit_ratio,byte_hit_ratio\n\
         sized,100000,cortado,6,3,0.500000,0.357143\n\
         sized,100000,cortado-bytes,6,3,0.500000,0.357143\n\
         sized,100000,moka,6,3,0.500000,0.357143\n\
         sized,100000,foyer,6,3,0.500000,0.357143\n"
    );
    let text = prints(&arguments);
    for name in ["byte hit %", "cortado-bytes", "quick_cache", "mini-moka", "stretto", "foyer"] {
        assert!(text.contains(name), "{text}");
    }
    for name in ["opt", "scc", "lru", "tinyufo"] {
        assert!(!text.contains(name), "{text}");
    }
    // Without --sizes the same file counts objects, and the columns are as ever.
    let arguments = ["hit-ratio", "--trace", &path, "--capacity", "9", "--cache", "lru"];
    assert_eq!(
        prints(&[&arguments[..], &["--format", "csv"]].concat()),
        "trace,capacity,cache,requests,hits,hit_ratio\nsized,9,lru,6,3,0.500000\n"
    );
}

#[test]
fn sizes_are_refused_where_there_are_none() {
    let scratch = Scratch::new("unsized");
    let sized = scratch.file("sized.txt", SIZED);
    let alike = scratch.file("loop.lirs", LOOP);
    let message = fails(&["hit-ratio", "--sizes", "--trace", &sized, &alike, "--capacity", "9"]);
    assert!(message.contains("loop.lirs") && message.contains("no sizes"), "{message}");
    let message = fails(&["hit-ratio", "--sizes", "--synthetic", "scan", "--capacity", "9"]);
    assert!(message.contains("no sizes"), "{message}");
    for name in ["opt", "scc", "arc", "tinyufo", "papaya"] {
        let arguments = ["hit-ratio", "--sizes", "--trace", &sized, "--capacity", "9"];
        let message = fails(&[&arguments[..], &["--cache", name]].concat());
        assert!(message.contains(name) && message.contains("size"), "{message}");
    }
    let arguments = ["hit-ratio", "--trace", &sized, "--capacity", "9", "--cache"];
    let message = fails(&[&arguments[..], &["cortado-bytes"]].concat());
    assert!(message.contains("--sizes"), "{message}");
    let message = fails(&["hit-ratio", "--trace", &sized, "--capacity", "2_000_000_000"]);
    assert!(message.contains("--sizes"), "{message}");
    assert!(fails(&["throughput", "--cache", "cortado-bytes"]).contains("--sizes"));
}

#[test]
fn picture_names_the_caches() {
    let scratch = Scratch::new("picture");
    let svg = scratch.0.join("picture.svg");
    let png = scratch.0.join("picture.png");
    for picture in [&svg, &png] {
        let text = prints(&[
            "hit-ratio",
            "--synthetic",
            "zipf,loop:30",
            "--accesses",
            "2000",
            "--capacity",
            "10,20,100,1",
            "--cache",
            "opt,cortado,quick_cache,lru",
            "--plot",
            picture.to_str().unwrap(),
        ]);
        assert!(text.contains("loop:30: 2 000 requests"), "{text}");
    }
    let text = fs::read_to_string(svg).unwrap();
    for name in ["opt", "cortado", "quick_cache", "lru", "zipf:0.99", "loop:30", "capacity"] {
        assert!(text.contains(name), "{name}");
    }
    assert!(fs::read(png).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn picture_of_one_capacity_is_drawn() {
    let scratch = Scratch::new("single");
    let sized = scratch.file("sized.txt", SIZED);
    let svg = scratch.0.join("picture.svg");
    let arguments = ["hit-ratio", "--sizes", "--trace", &sized, "--capacity", "2_000_000"];
    prints(&[&arguments[..], &["--plot", svg.to_str().unwrap()]].concat());
    let text = fs::read_to_string(svg).unwrap();
    for name in ["byte hit ratio", "cortado-bytes", "2 M"] {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn picture_that_cannot_be_drawn_is_refused_at_once() {
    // The trace is not there either, and would be named if it were looked for first.
    let arguments = ["hit-ratio", "--trace", "no/such.lirs", "--capacity", "2", "--plot"];
    for wrong in ["picture.jpg", "picture", "svg"] {
        let message = fails(&[&arguments[..], &[wrong]].concat());
        assert!(message.contains(".svg or .png"), "{message}");
    }
    let message = fails(&[&arguments[..], &["no/such/directory/picture.svg"]].concat());
    assert!(message.contains("no/such/directory"), "{message}");
}

#[test]
fn threads_replay_together() {
    let scratch = Scratch::new("threads");
    let path = scratch.file("loop.lirs", &LOOP.repeat(500));
    let arguments = ["hit-ratio", "--trace", &path, "--capacity", "1000", "--threads", "3"];
    let text = prints(&[&arguments[..], &["--format", "csv"]].concat());
    for line in text.lines().skip(1) {
        let hits: u64 = line.split(',').nth(4).unwrap().parse().unwrap();
        // Each of three threads misses each of four keys at most once, if all stays inside.
        let least = if line.contains(",stretto,") { 0 } else { 5_988 };
        assert!((least..=5_996).contains(&hits), "{line}");
    }
    let message = fails(&["hit-ratio", "--trace", &path, "--capacity", "9", "--threads", "0"]);
    assert!(message.contains("--threads"), "{message}");
}

#[test]
fn distances_from_the_best_rival_are_compared() {
    let scratch = Scratch::new("compare");
    let path = scratch.file("loop.lirs", LOOP);
    let at = format!("{path}@2,4");
    let arguments = ["compare", "--at", &at, "--cache", "opt,lru", "--format"];
    assert_eq!(
        prints(&[&arguments[..], &["csv"]].concat()),
        "trace,capacity,cache,hit_percent,best,best_percent,points\n\
         loop,2,opt,33.3333,lru,0.0000,+33.3333\n\
         loop,2,lru,0.0000,lru,0.0000,0.0000\n\
         loop,4,opt,66.6667,lru,66.6667,0.0000\n\
         loop,4,lru,66.6667,lru,66.6667,0.0000\n\
         mean,,opt,50.0000,,33.3333,+16.6667\n\
         mean,,lru,33.3333,,33.3333,0.0000\n"
    );
    let text = prints(&[&arguments[..], &["json"]].concat());
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows[4]["trace"], "mean");
    assert_eq!(rows[4]["capacity"], serde_json::Value::Null);
    let text = prints(&["compare", "--at", &at, "scan@100", "--accesses", "3000"]);
    assert!(text.contains("best rival") && text.contains("cortado"), "{text}");
    let mean = text.lines().rev().nth(2).unwrap();
    assert!(mean.contains("mean") && mean.contains('*'), "{text}");
}

#[test]
fn wrong_comparisons_are_errors() {
    for wrong in ["loop.lirs", "loop.lirs@", "loop.lirs@0", "@5", "zipf:x@5", "loop.lirs@5,x"] {
        let message = fails(&["compare", "--at", wrong]);
        assert!(message.contains("--at"), "{message}");
    }
    assert!(fails(&["compare", "--at", "no/such.lirs@5"]).contains("no/such.lirs"));
    let message = fails(&["compare", "--at", "scan@5", "--cache", "cortado,opt"]);
    assert!(message.contains("rival"), "{message}");
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
    let row = text.lines().nth(1).unwrap();
    // A run of a few milliseconds has few samples, or none.
    assert!(row.starts_with("lru,100,2,10000,0,") && row.contains(",10"), "{text}");
    let blocks = ["budget", "--capacity", "1000000", "--value-bytes", "10000", "--writers", "2"];
    let caches = ["--inserts", "2000", "--cache", "cortado,scc,lru", "--format", "csv"];
    let text = prints(&[&blocks[..], &caches[..]].concat());
    assert!(text.contains("cortado,1000000,2,2000,10000,"), "{text}");
    assert!(!text.contains("scc") && !text.contains("lru"), "they count entries: {text}");
    let only = ["--inserts", "2000", "--cache", "scc,lru"];
    assert!(fails(&[&blocks[..], &only[..]].concat()).contains("takes costs"));
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

/// The shortest runs there are.
const QUICK: [&str; 4] = ["--rounds", "1", "--seconds", "0.001"];

#[test]
fn steps_are_told_where_there_is_no_terminal() {
    let arguments = ["throughput", "--workload", "hits", "--cache", "cortado,lru"];
    let (_, message) = prints_with_progress(&[&arguments[..], &QUICK].concat());
    let steps: Vec<&str> = message.lines().filter(|line| line.contains(" %, ")).collect();
    assert_eq!(steps.len(), 2, "{message}");
    assert!(
        steps[1].starts_with(" 50 %, 1 of 2 runs, ") && steps[1].ends_with(": lru"),
        "{steps:?}"
    );
}

#[test]
fn runs_that_mean_nothing_are_warned_of() {
    let arguments = ["--workload", "hits", "--cache", "cortado", "--threads", "1"];
    for command in ["throughput", "latency"] {
        let (_, message) = prints_with_progress(&[&[command], &arguments[..], &QUICK].concat());
        assert!(message.contains("warning: 1 round(s) of 0.001 s are too short"), "{message}");
    }
    let long = ["--seconds", "0.1", "--rounds", "3"];
    let (_, message) = prints_with_progress(&[&["throughput"], &arguments[..], &long].concat());
    assert!(!message.contains("warning"), "{message}");
}

#[test]
fn speed_and_times_are_drawn() {
    let scratch = Scratch::new("plots");
    let path = scratch.0.join("plot.svg");
    let path = path.to_str().unwrap();
    let arguments = ["--workload", "mixed", "--keys", "1000", "--cache", "cortado,quick_cache"];
    for (command, words) in [
        ("throughput", ["Operations a second", "higher is better"]),
        ("latency", ["How long gets take: 1 thread(s)", "lower is better"]),
    ] {
        let seconds = ["--rounds", "1", "--seconds", "0.01", "--plot", path];
        let (_, message) = prints_with_progress(&[&[command], &arguments[..], &seconds].concat());
        assert!(message.contains(&format!("wrote {path}")), "{message}");
        let text = fs::read_to_string(path).unwrap();
        parse(&text);
        for word in words.into_iter().chain(["cortado", "quick_cache"]) {
            assert!(text.contains(word), "{word}");
        }
        let wrong = [&[command], &arguments[..], &["--plot", "no/such/plot.svg"]].concat();
        assert!(fails(&wrong).contains("no/such"));
    }
}

#[test]
fn rival_that_rounds_up_is_not_the_best() {
    let arguments = ["compare", "--at", "zipf@100", "--accesses", "5000", "--cache"];
    let text = prints(&[&arguments[..], &["cortado,scc,lru"]].concat());
    assert!(text.contains("* scc rounds the capacity up, 100 to 128"), "{text}");
    let line = text.lines().find(|line| line.contains("zipf")).unwrap();
    assert!(line.contains("lru") && line.contains('*'), "{text}");
    let message = fails(&[&arguments[..], &["cortado,scc"]].concat());
    assert!(message.contains("at 100 there is no rival"), "{message}");
    let text = prints(&[
        "hit-ratio",
        "--synthetic",
        "zipf",
        "--accesses",
        "5000",
        "--capacity",
        "100,128",
        "--cache",
        "cortado,scc",
    ]);
    assert!(text.contains("scc rounds the capacity up, 100 to 128"), "{text}");
}

const PARTS: [(&str, usize); 9] = [
    ("throughput", 4),
    ("latency", 4),
    ("hit-ratio", 2),
    ("memory", 1),
    ("budget", 1),
    ("sleepers", 1),
    ("preempted", 2),
    ("stale", 1),
    ("lines", if cfg!(all(target_os = "linux", target_arch = "x86_64")) { 2 } else { 0 }),
];

#[test]
fn report_is_whole_and_well_formed() {
    let scratch = Scratch::new("report");
    let file = |name: &str| scratch.0.join(name).to_str().unwrap().to_owned();
    let trace = scratch.file("loop.lirs", &LOOP.repeat(50));
    let (html, markdown, json) = (file("a/page.html"), file("b/page.md"), file("figures.json"));
    let outputs = ["report", "--html", &html, "--markdown", &markdown, "--json", &json];
    let small = [
        "--cache",
        "cortado,scc,papaya",
        "--threads",
        "1,2",
        "--crowd",
        "2,4",
        "--sleepers",
        "0,20",
        "--accesses",
        "2000",
        "--keys",
        "2000",
        "--entries",
        "1000",
    ];
    let at = format!("{trace}@2,4");
    let traces = ["--at", "zipf@50,100", &at];
    let (text, message) = prints_with_progress(&[&outputs[..], &small, &traces, &QUICK].concat());
    assert_eq!(text, "");
    assert!(message.contains(&format!("wrote {html}")), "{message}");
    assert!(message.contains("s of work, ") && message.contains("too short"), "{message}");

    let page = fs::read_to_string(&html).unwrap();
    let tree = parse(&page);
    let by_id = |id: &str| tree.descendants().find(|node| node.attribute("id") == Some(id));
    let count = |node: roxmltree::Node<'_, '_>, name: &str| {
        node.descendants().filter(|node| node.tag_name().name() == name).count()
    };
    assert!(by_id("summary").is_some());
    let markdown_text = fs::read_to_string(&markdown).unwrap();
    for (part, plots) in PARTS {
        let section = by_id(part).and_then(|title| title.parent()).unwrap();
        assert_eq!(count(section, "svg"), plots, "{part}");
        assert_eq!(count(section, "table"), plots, "{part}");
        for i in 1..=plots {
            let name = format!("page/{part}-{i}.svg");
            assert!(markdown_text.contains(&format!("]({name})")), "{name}");
            let svg = fs::read_to_string(scratch.0.join("b").join(&name)).unwrap();
            let tree = parse(&svg);
            assert_eq!(tree.root_element().tag_name().name(), "svg");
            assert!(count(tree.root_element(), "text") > 3, "{name}");
        }
    }
    // It needs no other file, and says where, of what and how it was measured.
    assert!(!page.contains("src=") && !page.contains("<link") && !page.contains("<script"));
    for text in [&page, &markdown_text] {
        for words in ["hardware threads", "seed 1", "higher is better", "scc rounds", "report"] {
            assert!(words == "higher is better" || text.contains(words), "{words}");
        }
        assert!(text.contains("too short to mean anything"));
        let scratch = scratch.0.to_str().unwrap();
        assert!(!text.contains(scratch), "it names a directory of this machine");
    }

    // The same pages come from the figures alone.
    let (again, too) = (file("again.html"), file("again.md"));
    prints_with_progress(&["report", "--from", &json, "--html", &again, "--markdown", &too]);
    assert_eq!(fs::read_to_string(again).unwrap(), page);
}

#[test]
fn wrong_reports_are_errors() {
    let scratch = Scratch::new("wrong-report");
    let path = scratch.file("figures.json", b"{}");
    assert!(fails(&["report", "--from", "no/such.json"]).contains("no/such.json"));
    assert!(fails(&["report", "--from", &path]).contains("no figures"));
    assert!(fails(&["report", "--only", "speed"]).contains("hit-ratio"));
    assert!(fails(&["report", "--at", "no/such.lirs@5"]).contains("no/such.lirs"));
    // A file stands where a directory is needed.
    let html = format!("{path}/page.html");
    let message =
        run(&[&["report", "--only", "stale", "--cache", "cortado", "--html", &html], &QUICK[..]]
            .concat());
    assert_eq!(message.status.code(), Some(2));
}

#[test]
fn scaling_writes_what_a_user_sends() {
    let scratch = Scratch::new("scaling");
    let path = scratch.0.join("scaling.json");
    let path = path.to_str().unwrap();
    let arguments = ["scaling", "--max-threads", "2", "--workload", "hits,hot", "--output", path];
    let (text, message) =
        prints_with_progress(&[&arguments[..], &["--cache", "cortado,moka"], &QUICK].concat());
    assert!(text.contains("2 threads") && text.contains("(1.00)"), "{text}");
    assert!(message.contains(&format!("wrote {path}")), "{message}");
    let text = fs::read_to_string(path).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["figures"].as_array().unwrap().len(), 8);
    assert_eq!(file["figures"][0]["cache"], "cortado");
    assert!(file["machine"]["hardware_threads"].as_u64().unwrap() > 0);
    assert!(file["figures"][7]["rates"][0].as_u64().unwrap() > 0);
    assert!(!text.contains(scratch.0.to_str().unwrap()));
    assert!(fails(&["scaling", "--output", scratch.0.to_str().unwrap()]).contains("directory"));
    assert!(fails(&["scaling", "--max-threads", "0"]).contains("--max-threads"));
}

/// A table of so many entries may have grown or not. What it took, and the garbage of its growth, were
/// once counted as what deadlines take.
#[test]
fn growth_of_the_table_is_no_part_of_what_a_deadline_takes() {
    for entries in ["3000", "30000"] {
        let sizes = ["--entries", entries, "--seconds", "0.001", "--step-seconds", "60"];
        let text = prints(&[&["expiry", "--format", "json"], &sizes[..]].concat());
        let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
        let bytes = rows[0]["bytes_per_deadline"].as_f64().unwrap();
        let kept = rows[0]["noted_per_deadline"].as_f64().unwrap();
        assert!((kept..kept + 20.0).contains(&bytes), "{text}");
        assert_eq!(rows[0]["left_after"], 0);
    }
}

/// Runs `near` on real servers for a moment; `None` where none is installed.
#[cfg(feature = "near")]
fn near(arguments: &[&str]) -> Option<Vec<serde_json::Value>> {
    let output = run(&[&["near", "--format", "json", "--rounds", "1"], arguments].concat());
    let message = String::from_utf8(output.stderr).unwrap();
    if message.contains("neither valkey-server nor redis-server is installed") {
        println!("SKIPPED: neither valkey-server nor redis-server is installed");
        return None;
    }
    assert!(output.status.success(), "{message}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[cfg(feature = "near")]
#[test]
fn near_cache_leaves_nothing_stale_and_versions_do_not_go_back() {
    let ways = "redis,cortado-broadcast,cortado-per-key";
    let Some(rows) = near(&["--way", ways, "--seconds", "0.3", "--seed", "5"]) else { return };
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!((&row["backwards"], &row["stale_at_rest"]), (&0.into(), &0.into()), "{row}");
        assert!(row["writes_per_second"].as_f64().unwrap() > 0.0, "{row}");
    }
    // Without a cache a read is a round trip, and never stale.
    assert_eq!(rows[0]["reads"], rows[0]["round_trips"]);
    assert_eq!((&rows[0]["stale_reads"], &rows[0]["held_at_rest"]), (&0.into(), &0.into()));
    for row in &rows[1..] {
        assert!(row["hit_ratio"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["round_trips"].as_u64().unwrap() < row["reads"].as_u64().unwrap(), "{row}");
        assert!(row["held_at_rest"].as_u64().unwrap() > 0, "{row}");
    }
}

#[cfg(feature = "near")]
#[test]
fn near_counts_what_is_stale() {
    // What was read is kept for longer than the run, and no change is reported.
    let arguments = ["--way", "moka-ttl", "--ttl", "600", "--seconds", "0.3", "--zipf", "0"];
    let Some(rows) = near(&arguments) else { return };
    for count in ["stale_reads", "stale_at_rest"] {
        assert!(rows[0][count].as_u64().unwrap() > 0, "{rows:?}");
    }
}

#[cfg(feature = "near")]
#[test]
fn near_prints_its_seed_and_server() {
    let arguments = ["near", "--way", "cortado-per-key,redis", "--seconds", "0.05"];
    let more = ["--rounds", "2", "--writes", "500", "--seed", "77"];
    if near(&["--way", "redis", "--seconds", "0.001"]).is_none() {
        return;
    }
    let (text, message) = prints_with_progress(&[&arguments[..], &more].concat());
    for words in ["seed 77", "hardware threads", "500 times a second", "stale at rest"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.contains("Redis ") || text.contains("Valkey "), "{text}");
    assert!(message.contains(" 50 %, 2 of 4 runs, "), "{message}");
}

#[cfg(feature = "near")]
#[test]
fn near_without_a_server_is_an_error() {
    let scratch = Scratch::new("no-server");
    let output = Command::new(env!("CARGO_BIN_EXE_cortado-replay"))
        .args(["near", "--way", "redis"])
        .env("PATH", &scratch.0)
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("error: neither valkey-server nor redis-server"), "{message}");
    assert!(output.stdout.is_empty());
    assert!(fails(&["near", "--way", "memcached"]).contains("cortado-per-key"));
    assert!(fails(&["near", "--keys", "0"]).contains("--keys"));
}

/// What cortado's operations do to memory that other threads use, counted and not argued.
///
/// The first hit of an entry sets its access bits; those that follow find them set. An insert runs
/// the maintenance here, too, since there is no thread for it; and whether two threads share a
/// stripe is a matter of chance, so its bounds are wide.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn hit_writes_no_line_that_all_threads_write() {
    let count = |cache: &str, op: &str| -> (f64, f64) {
        let text = prints(&["cell", "lines", "--cache", cache, "--op", op]);
        let lines: serde_json::Value = serde_json::from_str(&text).unwrap();
        let figure = |name: &str| lines[name].as_f64().unwrap();
        (figure("shared"), figure("hot"))
    };
    for (op, most_shared, most_hot) in
        [("hit", 1.5, 0.0), ("again", 0.1, 0.0), ("replace", 8.0, 3.0), ("insert", 20.0, 8.0)]
    {
        let (shared, hot) = count("cortado", op);
        assert!(shared <= most_shared && hot <= most_hot, "{op}: {shared} shared, {hot} hot");
    }
    // A count must see a lock and a list.
    let (shared, hot) = count("lru", "hit");
    assert!(hot >= 1.0 && shared >= 3.0, "{shared} {hot}");
}
