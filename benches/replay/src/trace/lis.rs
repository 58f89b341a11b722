//! The `.lis` format of the ARC paper: `start count x x` stands for `count` accesses from `start`.

use std::io::BufRead;

use anyhow::{Context as _, Result, bail};

use super::{lines, push};

/// The longest run of one line; a line that asks for more is more likely damaged.
const MAX_RUN: u64 = 1 << 24;

/// Reads the accesses.
pub fn parse(input: &mut dyn BufRead) -> Result<Vec<u64>> {
    let mut accesses = Vec::new();
    lines::each(input, |line| {
        if line.is_empty() {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace();
        let start = lines::number(words.next(), "the start")?;
        let count = lines::number(words.next(), "the count")?;
        if count > MAX_RUN {
            bail!("the count {count} is above {MAX_RUN}");
        }
        let end = start.checked_add(count).context("start and count are too large together")?;
        (start..end).try_for_each(|key| push(&mut accesses, key))
    })?;
    Ok(accesses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_stands_for_a_run() {
        let accesses = parse(&mut &b"10 3 0 0\n7 1 0 1\n5 0 0 2\n"[..]).unwrap();
        assert_eq!(accesses, [10, 11, 12, 7]);
    }

    #[test]
    fn bad_line_is_named() {
        let error = parse(&mut &b"1 1 0 0\n2 x 0 0\n"[..]).unwrap_err();
        assert_eq!(format!("{error:#}").split(':').next(), Some("line 2"));
    }

    #[test]
    fn run_past_the_last_key_is_an_error() {
        let line = format!("{} 9 0 0", u64::MAX - 3);
        assert!(parse(&mut line.as_bytes()).is_err());
        assert!(parse(&mut &b"1 99999999999 0 0"[..]).is_err());
    }
}
