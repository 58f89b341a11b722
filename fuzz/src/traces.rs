//! Random bytes as a trace file of each format: an error or accesses, never a panic.

use anyhow::{Result, bail};

// The parsers of `benches/replay`, which is a binary: their sources, and the items that they
// import.
#[path = "../../benches/replay/src/trace/adaptsize.rs"]
mod adaptsize;
#[path = "../../benches/replay/src/trace/address.rs"]
mod address;
#[path = "../../benches/replay/src/trace/lines.rs"]
mod lines;
#[path = "../../benches/replay/src/trace/lirs.rs"]
mod lirs;
#[path = "../../benches/replay/src/trace/lis.rs"]
mod lis;
#[path = "../../benches/replay/src/trace/u32be.rs"]
mod u32be;

/// Far fewer than the binary accepts, so that a run of accesses does not exhaust the memory.
const MAX_ACCESSES: usize = 1 << 16;

/// Keys and sizes.
#[derive(Debug)]
struct Accesses {
    keys: Vec<u64>,
    sizes: Vec<u64>,
}

fn push(accesses: &mut Vec<u64>, key: u64) -> Result<()> {
    if accesses.len() >= MAX_ACCESSES {
        bail!("more than {MAX_ACCESSES} accesses");
    }
    accesses.push(key);
    Ok(())
}

/// Parses the bytes as each format. The first byte says where they are split into two reads.
pub fn run(data: &[u8]) {
    let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
    for parse in [lis::parse, lirs::parse, address::parse, u32be::parse] {
        let (whole, split) = (parse(&mut &*data), parse(&mut &mut Halves::new(data)));
        match (&whole, &split) {
            (Ok(whole), Ok(split)) => assert_eq!(whole, split, "it matters how it is read"),
            (Err(whole), Err(split)) => assert_eq!(format!("{whole:#}"), format!("{split:#}")),
            _ => panic!("{whole:?}, and in two parts {split:?}"),
        }
    }
    if let Ok(keys) = lirs::parse(&mut &*data) {
        assert!(keys.len() <= lines);
    }
    if let Ok(words) = u32be::parse(&mut &*data) {
        assert_eq!(words.len() * 4, data.len());
    }
    if let Ok(accesses) = adaptsize::parse(&mut &*data) {
        assert_eq!(accesses.keys.len(), accesses.sizes.len());
        assert!(accesses.keys.len() <= lines);
        assert!(accesses.sizes.iter().all(|size| *size > 0));
    }
}

/// A file that is read in two parts.
struct Halves<'a>(std::io::Chain<&'a [u8], &'a [u8]>);

impl<'a> Halves<'a> {
    fn new(data: &'a [u8]) -> Self {
        let at = data.first().map_or(0, |first| usize::from(*first) % data.len());
        Self(std::io::Read::chain(&data[..at], &data[at..]))
    }
}

impl std::io::Read for Halves<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::BufRead for Halves<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}
