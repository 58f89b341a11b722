//! The `.lirs` format of the LIRS papers: a decimal key a line; blank lines and lines of `*` are
//! skipped.

use std::io::BufRead;

use anyhow::Result;

use super::{lines, push};

/// Reads the accesses.
pub fn parse(input: &mut dyn BufRead) -> Result<Vec<u64>> {
    let mut accesses = Vec::new();
    lines::each(input, |line| {
        if line.bytes().all(|byte| byte == b'*') {
            return Ok(());
        }
        push(&mut accesses, lines::number(Some(line), "the key")?)
    })?;
    Ok(accesses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_and_stars_are_skipped() {
        assert_eq!(parse(&mut &b"1\n\n*\n2\n***\n3"[..]).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn bad_line_is_named() {
        let error = parse(&mut &b"1\n*\n2 3\n"[..]).unwrap_err();
        assert_eq!(format!("{error:#}").split(':').next(), Some("line 3"));
    }
}
