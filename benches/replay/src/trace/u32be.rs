//! The `.u32be` format: nothing but keys, as big-endian 32-bit words.

use std::io::{BufRead, Read as _};

use anyhow::{Context as _, Result, bail};

use super::push;

const WORD: usize = 4;

/// Reads the accesses.
pub fn parse(input: &mut dyn BufRead) -> Result<Vec<u64>> {
    let mut accesses = Vec::new();
    let mut word = Vec::with_capacity(WORD);
    loop {
        word.clear();
        let read = input
            .take(WORD as u64)
            .read_to_end(&mut word)
            .with_context(|| format!("word {}: cannot be read", accesses.len() + 1))?;
        match <[u8; WORD]>::try_from(&word[..]) {
            Ok(bytes) => push(&mut accesses, u64::from(u32::from_be_bytes(bytes)))?,
            Err(_) if read == 0 => return Ok(accesses),
            Err(_) => bail!("word {}: only {read} bytes of 4 are there", accesses.len() + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_big_endian() {
        assert_eq!(parse(&mut &[0, 0, 1, 2, 255, 0, 0, 0][..]).unwrap(), [258, 0xff00_0000]);
    }

    #[test]
    fn half_a_word_is_an_error() {
        let error = parse(&mut &[0, 0, 0, 1, 9][..]).unwrap_err();
        assert_eq!(error.to_string(), "word 2: only 1 bytes of 4 are there");
    }
}
