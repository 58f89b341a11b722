//! The `.address` format: memory accesses, the second word of each line is the address in
//! hexadecimal.

use std::io::BufRead;

use anyhow::{Context as _, Result};

use super::{lines, push};

/// Reads the accesses.
pub fn parse(input: &mut dyn BufRead) -> Result<Vec<u64>> {
    let mut accesses = Vec::new();
    lines::each(input, |line| {
        if line.is_empty() {
            return Ok(());
        }
        let word = line.split_ascii_whitespace().nth(1).context("the address is missing")?;
        let digits = word.strip_prefix("0x").or(word.strip_prefix("0X")).unwrap_or(word);
        let key = u64::from_str_radix(digits, 16)
            .with_context(|| format!("the address {word:?} is not hexadecimal"))?;
        push(&mut accesses, key)
    })?;
    Ok(accesses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_word_is_the_key() {
        assert_eq!(parse(&mut &b"s 0x1f 4\nl a0\n"[..]).unwrap(), [0x1f, 0xa0]);
    }

    #[test]
    fn bad_line_is_named() {
        for bad in ["s", "s 0xg1 4", "s 11112222333344445 1"] {
            let error = parse(&mut format!("s 0x1 4\n{bad}\n").as_bytes()).unwrap_err();
            assert_eq!(format!("{error:#}").split(':').next(), Some("line 2"), "{bad}");
        }
    }
}
