//! The `.txt` format of the AdaptSize paper: `time key size` a line. Sizes are checked but not
//! used: every entry counts as one.

use std::io::BufRead;

use anyhow::Result;

use super::{lines, push};

/// Reads the accesses.
pub fn parse(input: &mut dyn BufRead) -> Result<Vec<u64>> {
    let mut accesses = Vec::new();
    lines::each(input, |line| {
        if line.is_empty() {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace();
        lines::number(words.next(), "the time")?;
        let key = lines::number(words.next(), "the key")?;
        lines::number(words.next(), "the size")?;
        push(&mut accesses, key)
    })?;
    Ok(accesses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_word_is_the_key() {
        assert_eq!(parse(&mut &b"1 40 500\n2 41 6\n"[..]).unwrap(), [40, 41]);
    }

    #[test]
    fn bad_line_is_named() {
        let error = parse(&mut &b"1 40 500\n2 41\n"[..]).unwrap_err();
        assert!(format!("{error:#}").starts_with("line 2:"), "{error:#}");
    }
}
