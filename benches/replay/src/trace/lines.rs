//! What the formats of lines share: going through them, counting them, and saying which is bad.

use std::io::BufRead;

use anyhow::{Context as _, Result, bail};

/// The longest line that is read; none of the formats comes near.
const MAX_LINE: usize = 4096;

/// Calls `each` with every line, and adds the line's number to what it finds wrong.
pub fn each(input: &mut dyn BufRead, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = std::io::Read::take(&mut *input, MAX_LINE as u64)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("line {number}: cannot be read"))?;
        if read == 0 {
            break;
        }
        if read == MAX_LINE {
            bail!("line {number}: longer than {MAX_LINE} bytes");
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            bail!("line {number}: not text");
        };
        each(text.trim()).with_context(|| format!("line {number}: {:?}", shorten(text.trim())))?;
    }
    Ok(())
}

/// Reads a decimal number.
pub fn number(word: Option<&str>, what: &str) -> Result<u64> {
    let Some(word) = word else {
        bail!("{what} is missing");
    };
    word.parse().with_context(|| format!("{what} {:?} is not a number", shorten(word)))
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_line_needs_no_newline() {
        let mut seen = Vec::new();
        each(&mut &b"a\n b \r\n\nc"[..], |line| {
            seen.push(line.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["a", "b", "", "c"]);
    }

    #[test]
    fn endless_line_is_an_error() {
        let input = vec![b'1'; 3 * MAX_LINE];
        let error = each(&mut &input[..], |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "line 1: longer than 4096 bytes");
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        let error = each(&mut &b"1\n\xff\xfe\n"[..], |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "line 2: not text");
    }
}
