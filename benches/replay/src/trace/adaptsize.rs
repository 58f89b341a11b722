//! The `.txt` format of the AdaptSize paper: `time key size` a line. An object of no bytes counts
//! as one of a byte, because some caches never let go of what costs nothing.

use std::io::BufRead;

use anyhow::{Result, bail};

use super::{Accesses, lines, push};

/// The largest object; a line that has a larger one is more likely damaged.
const MAX_SIZE: u64 = 1 << 40;

/// Reads the accesses and the sizes.
pub fn parse(input: &mut dyn BufRead) -> Result<Accesses> {
    let mut keys = Vec::new();
    let mut sizes = Vec::new();
    lines::each(input, |line| {
        if line.is_empty() {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace();
        lines::number(words.next(), "the time")?;
        let key = lines::number(words.next(), "the key")?;
        let size = lines::number(words.next(), "the size")?;
        if size > MAX_SIZE {
            bail!("the size {size} is above {MAX_SIZE}");
        }
        sizes.push(size.max(1));
        push(&mut keys, key)
    })?;
    Ok(Accesses { keys, sizes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_time_key_and_size() {
        let accesses = parse(&mut &b"1 40 500\n2 41 0\n"[..]).unwrap();
        assert_eq!(accesses.keys, [40, 41]);
        assert_eq!(accesses.sizes, [500, 1]);
    }

    #[test]
    fn size_beyond_belief_is_an_error() {
        assert!(parse(&mut &b"1 40 99999999999999\n"[..]).is_err());
    }

    #[test]
    fn bad_line_is_named() {
        let error = parse(&mut &b"1 40 500\n2 41\n"[..]).unwrap_err();
        assert!(format!("{error:#}").starts_with("line 2:"), "{error:#}");
    }
}
