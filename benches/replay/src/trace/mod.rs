//! Reads traces of real accesses.
//!
//! The format follows from the file's name, a file per format: `.lis`, `.lirs`, `.address`,
//! `.txt`, `.u32be`, each as it is or compressed as `.gz`, `.zst` or `.xz`.

mod adaptsize;
mod address;
mod lines;
mod lirs;
mod lis;
mod u32be;
pub mod zipf;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The most accesses a trace may have; beyond that, a file is more likely damaged than long.
pub const MAX_ACCESSES: usize = 1 << 31;

/// The formats, all told, for error messages.
const FORMATS: &str = "NAME.lis, NAME.lirs, NAME.address, NAME.txt (adaptsize) or NAME.u32be, \
     as it is or with .gz, .zst or .xz behind";

/// Reads a whole trace: a key for each access.
///
/// # Errors
///
/// If the file cannot be read, is no trace by its name, has a bad line or is empty; the message
/// names the file, and the line where there is one.
pub fn read(path: &Path) -> Result<Vec<u64>> {
    let shown = path.display();
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (stem, packing) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Packing::Gzip),
        Some((stem, "zst")) => (stem, Packing::Zstd),
        Some((stem, "xz")) => (stem, Packing::Xz),
        _ => (name.as_str(), Packing::None),
    };
    let parse: fn(&mut dyn BufRead) -> Result<Vec<u64>> = match stem.rsplit_once('.') {
        Some((_, "lis")) => lis::parse,
        Some((_, "lirs")) => lirs::parse,
        Some((_, "address")) => address::parse,
        Some((_, "txt")) => adaptsize::parse,
        Some((_, "u32be")) => u32be::parse,
        _ => bail!("{shown}: the name does not tell the format; it must be {FORMATS}"),
    };
    let file = File::open(path).with_context(|| format!("{shown}: cannot be opened"))?;
    let unpacked: Box<dyn Read> = match packing {
        Packing::None => Box::new(file),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        Packing::Zstd => Box::new(
            zstd::stream::read::Decoder::new(file)
                .with_context(|| format!("{shown}: cannot be unpacked"))?,
        ),
        Packing::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(BufReader::new(file))),
    };
    let accesses = parse(&mut BufReader::with_capacity(1 << 16, unpacked))
        .with_context(|| shown.to_string())?;
    if accesses.is_empty() {
        bail!("{shown}: there is no access in it");
    }
    Ok(accesses)
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
