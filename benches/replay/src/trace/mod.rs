//! Traces: reads those of real accesses, makes up others.
//!
//! The format follows from the file's name, a file per format: `.lis`, `.lirs`, `.address`,
//! `.txt`, `.u32be`, each as it is or compressed as `.gz`, `.zst` or `.xz`.

mod adaptsize;
mod address;
mod lines;
mod lirs;
mod lis;
pub mod synthetic;
mod u32be;
pub mod zipf;
mod zstd;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The most accesses a trace may have; beyond that, a file is more likely damaged than long.
pub const MAX_ACCESSES: usize = 1 << 31;

/// The formats, all told, for error messages.
const FORMATS: &str = "NAME.lis, NAME.lirs, NAME.address, NAME.txt (adaptsize) or NAME.u32be, \
     as it is or with .gz, .zst or .xz behind";

/// A sequence of accesses with a name.
pub struct Trace {
    /// The name, for tables and pictures.
    pub name: String,
    /// The key of each access.
    pub keys: Vec<u64>,
    /// The bytes of each access's object; empty if every object counts as one.
    pub sizes: Vec<u64>,
}

impl Trace {
    /// Returns what an access's object takes of a cache.
    #[inline]
    pub fn size(&self, i: usize) -> u64 {
        self.sizes.get(i).copied().unwrap_or(1)
    }
}

/// Keys, and sizes if the format has them.
#[derive(Debug)]
struct Accesses {
    keys: Vec<u64>,
    sizes: Vec<u64>,
}

/// Reads a whole trace.
///
/// # Errors
///
/// If the file cannot be read, is no trace by its name, has a bad line or is empty; the message
/// names the file, and the line where there is one.
pub fn read(path: &Path) -> Result<Trace> {
    let shown = path.display();
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (stem, packing) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Packing::Gzip),
        Some((stem, "zst")) => (stem, Packing::Zstd),
        Some((stem, "xz")) => (stem, Packing::Xz),
        _ => (name.as_str(), Packing::None),
    };
    let parse = match stem.rsplit_once('.') {
        Some((_, "lis")) => Parse::Keys(lis::parse),
        Some((_, "lirs")) => Parse::Keys(lirs::parse),
        Some((_, "address")) => Parse::Keys(address::parse),
        Some((_, "txt")) => Parse::KeysAndSizes(adaptsize::parse),
        Some((_, "u32be")) => Parse::Keys(u32be::parse),
        _ => bail!("{shown}: the name does not tell the format; it must be {FORMATS}"),
    };
    let file = File::open(path).with_context(|| format!("{shown}: cannot be opened"))?;
    let file = BufReader::new(file);
    let unpacked: Box<dyn Read> = match packing {
        Packing::None => Box::new(file),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Packing::Zstd => Box::new(zstd::Frames::new(file)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new(file, true)),
    };
    let mut input = BufReader::with_capacity(1 << 16, unpacked);
    let Accesses { keys, sizes } = match parse {
        Parse::Keys(parse) => parse(&mut input).map(|keys| Accesses { keys, sizes: Vec::new() }),
        Parse::KeysAndSizes(parse) => parse(&mut input),
    }
    .with_context(|| shown.to_string())?;
    if keys.is_empty() {
        bail!("{shown}: there is no access in it");
    }
    Ok(Trace { name: name_of(path), keys, sizes })
}

/// The file's name without what tells its format.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').find(|part| !part.is_empty()).unwrap_or(&name).to_owned()
}

enum Parse {
    Keys(fn(&mut dyn BufRead) -> Result<Vec<u64>>),
    KeysAndSizes(fn(&mut dyn BufRead) -> Result<Accesses>),
}

enum Packing {
    None,
    Gzip,
    Zstd,
    Xz,
}

/// Adds one access, unless there are too many.
fn push(accesses: &mut Vec<u64>, key: u64) -> Result<()> {
    if accesses.len() >= MAX_ACCESSES {
        bail!("more than {MAX_ACCESSES} accesses");
    }
    accesses.push(key);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_is_named_without_its_format() {
        assert_eq!(name_of(Path::new("dir.d/OLTP.lis.zst")), "OLTP");
        assert_eq!(name_of(Path::new("w106.u32be.xz")), "w106");
    }
}
